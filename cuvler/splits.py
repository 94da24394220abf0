"""Splits: a few percent of a dataset's labels, for semi-supervised learning.

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

# Sections of the source file that every split has.
_HEADER = ("info", "licenses", "categories")


def write_splits(
    ground_truth: StrPath,
    output: StrPath,
    *,
    percents: Iterable[int],
    seed: int = 0,
) -> dict[int, int]:
    """Write ``output/{percent}.json`` for each percentage of a COCO json's images.

    A split has randomly drawn images with all of their annotations. Splits are nested: the 1 %
    split is part of the 2 % split. An image's rank depends only on the seed and its id, so that
    splits change little when images are added. All categories are kept, even without annotations,
    so that class indices are the same in every split. Images and annotations keep their order, and
    only the ids are held in memory.

    Args:
        ground_truth: a COCO json, such as COCO's ``instances_train2017.json``.
        output: the folder to write to.
        percents: from 1 to 100; a split has ``n * percent // 100`` of n images, but at least one.
        seed: seed of the draw.

    Returns:
        {percent: number of images}.

    Raises:
        ConfigError: no percentage, or one out of range.
        DataError: the file is not a COCO json, or an annotation's image is not listed.
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
    """Return the sections that every split has, and the image ids."""
    header: dict[str, Any] = {"info": {}, "licenses": [], "categories": []}
    image_ids: list[int] = []
    for section, content in stream_annotations(path):
        if section == "images":
            if not isinstance(content, dict) or "id" not in content:
                raise DataError(
                    f"{path}: not COCO annotations: {content!r} is not an image with an id"
                )
            image_ids.append(content["id"])
        elif section in _HEADER and isinstance(header[section], list):
            header[section].append(content)
        elif section == "info" and isinstance(content, dict):
            header["info"] = content
    for section, records in (("images", image_ids), ("categories", header["categories"])):
        if not records:
            raise DataError(
                f"{path}: has no {section}; splits need annotations with classes, "
                "such as COCO's instances_train2017.json"
            )
    twice = [one for one, count in Counter(image_ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: image id {twice[0]} is listed twice; give every image a unique id"
        )
    return header, image_ids


def _ranks(image_ids: list[int], seed: int) -> dict[int, int]:
    """Return {image id: rank in a random order}; digests, unlike generators, never change."""
    digests = {one: hashlib.sha256(f"{seed}/{one}".encode()).digest() for one in image_ids}
    return {one: rank for rank, one in enumerate(sorted(image_ids, key=digests.__getitem__))}


def _rank(ranks: dict[int, int], record: Any, section: str, path: StrPath) -> int:
    key = "id" if section == "images" else "image_id"
    try:
        return ranks[record[key]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not COCO annotations: no image for the {key} of {str(record)[:100]}"
        ) from error
