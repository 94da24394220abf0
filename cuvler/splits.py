"""Splits: a few percent of a dataset's labels, for learning from few.

CutLER (Wang et al., CVPR 2023), section 5.4, fine-tunes on 1 to 100 % of COCO's labelled images.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvler.coco_json import stream_annotations, write_annotations
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath

# What every split has of the file that it was taken from.
_HEADER = ("info", "licenses", "categories")


def write_splits(
    ground_truth: StrPath,
    output: StrPath,
    *,
    percents: Iterable[int],
    seed: int = 0,
) -> dict[int, int]:
    """Write ``output/{percent}.json`` for each percentage of a COCO json's images.

    Images are drawn, and all annotations of an image go with it. The draw is nested: what is in
    1 % is in 2 %. Whether an image comes early is decided by the seed and its id alone, so that
    splits stay nearly the same when images are added. Categories stay all, also those without
    an annotation in a small split, so that class numbers are the same in every split. Images and
    annotations keep their order, and only their ids are held in memory.

    Args:
        ground_truth: a COCO json, such as COCO's ``instances_train2017.json``.
        output: the folder to write to.
        percents: from 1 to 100; of n images a split has ``n * percent // 100``, but at least one.
        seed: chooses the images.

    Returns:
        {percent: number of images}.

    Raises:
        ConfigError: no percentage, or one out of range.
        DataError: not a COCO json, or its annotations are of images that it does not list.
    """
    wanted = sorted(set(percents))
    if not wanted or wanted[0] < 1 or wanted[-1] > 100:
        raise ConfigError(f"percents {wanted}: one or more whole numbers from 1 to 100 are needed")
    header, image_ids = _read_header(ground_truth)
    ranks = _ranks(image_ids, seed)
    counts = {percent: max(1, len(ranks) * percent // 100) for percent in wanted}
    with ExitStack() as stack:
        writers = []
        for percent, count in counts.items():
            split = {"percent": percent, "seed": seed, "of": len(ranks)}
            opening = header | {"info": {**header["info"], "split": split}}
            path = Path(output) / f"{percent}.json"
            writers.append((count, stack.enter_context(write_annotations(path, opening))))
        for section, record in stream_annotations(ground_truth):
            if section not in ("images", "annotations"):
                continue
            rank = _rank(ranks, record, section, ground_truth)
            for count, writer in writers:
                if rank < count:
                    add = writer.add_image if section == "images" else writer.add_annotation
                    add(record)
    return counts


def _read_header(path: StrPath) -> tuple[dict[str, Any], list[int]]:
    """Give the sections that every split has, and the images' ids."""
    header: dict[str, Any] = {"info": {}, "licenses": [], "categories": []}
    image_ids: list[int] = []
    for section, content in stream_annotations(path):
        if section == "images":
            if not isinstance(content, dict) or "id" not in content:
                raise DataError(f"{path}: not COCO annotations: {content!r} is no image with an id")
            image_ids.append(content["id"])
        elif section in _HEADER and isinstance(header[section], list):
            header[section].append(content)
        elif section == "info" and isinstance(content, dict):
            header["info"] = content
    for section, records in (("images", image_ids), ("categories", header["categories"])):
        if not records:
            raise DataError(
                f"{path}: has no {section}; splits are made of annotations with classes, "
                "such as COCO's instances_train2017.json"
            )
    twice = [one for one, count in Counter(image_ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: image id {twice[0]} is listed twice; give every image an id of its own"
        )
    return header, image_ids


def _ranks(image_ids: list[int], seed: int) -> dict[int, int]:
    """Give {image id: place in a random order}; a digest, unlike a generator, never changes."""
    digests = {one: hashlib.sha256(f"{seed}/{one}".encode()).digest() for one in image_ids}
    return {one: place for place, one in enumerate(sorted(image_ids, key=digests.__getitem__))}


def _rank(ranks: dict[int, int], record: Any, section: str, path: StrPath) -> int:
    key = "id" if section == "images" else "image_id"
    try:
        return ranks[record[key]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not COCO annotations: no image has the {key} of {str(record)[:100]}"
        ) from error
