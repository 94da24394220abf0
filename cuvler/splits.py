"""Splits: a few percent of a dataset's labels, for semi-supervised learning.

CutLER (Wang et al., CVPR 2023), section 5.4, fine-tunes on 1 to 100 % of COCO's labelled images.
"""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvler.coco import (
    Annotation,
    AnnotationIds,
    AnnotationWriter,
    Category,
    Image,
    Needs,
    Section,
    read_coco,
    write_annotations,
)
from cuvler.coco.refusals import refusal
from cuvler.coco.values import Refused
from cuvler.coco.writer import json_text
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath

# Sections of the source file that every split has.
_HEADER = ("info", "licenses", "categories")
_COPIED = ("images", "annotations")
_NEEDS = Needs(categories=True, raw=True)


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
    only ids are held in memory.

    Args:
        ground_truth: a COCO json, such as COCO's ``instances_train2017.json``.
        output: the folder to write to.
        percents: from 1 to 100; a split has ``n * percent // 100`` of n images, but at least one.
        seed: seed of the draw.

    Returns:
        {percent: number of images}.

    Raises:
        ConfigError: no percentage, or one out of range.
        DataError: the file is not a COCO json, or a record is invalid; see
            :func:`cuvler.coco.read_coco`.
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
        _copy(ground_truth, header, ranks, writers)
    return counts


def _copy(
    ground_truth: StrPath,
    header: Mapping[str, Any],
    ranks: Mapping[int, int],
    writers: Iterable[tuple[int, AnnotationWriter]],
) -> None:
    """Write images and their annotations to the splits, each with the images of lower ranks."""
    ids = AnnotationIds()
    named = {category["id"]: "" for category in header["categories"]}
    index = {Image: 0, Annotation: 0}
    for record in read_coco(ground_truth, _NEEDS, only=_COPIED, categories=named):
        if not isinstance(record, Image | Annotation):
            continue
        try:
            if isinstance(record, Annotation):
                annotation = _with_id(record, ids)
                for count, writer in writers:
                    if ranks[record.image_id] < count:
                        writer.add_annotation(annotation)
            else:
                for count, writer in writers:
                    if ranks[record.id] < count:
                        writer.add_image(record.raw)
        except Refused as reason:
            raise refusal(ground_truth, _NEEDS, index[type(record)], record, reason) from None
        index[type(record)] += 1
    ids.log(ground_truth)


def _with_id(annotation: Annotation, ids: AnnotationIds) -> Mapping[str, Any]:
    number = ids.unique(annotation.id)
    kept = type(annotation.raw.get("id")) is int and number == annotation.id
    return annotation.raw if kept else {**annotation.raw, "id": number}


def _read_header(path: StrPath) -> tuple[dict[str, Any], list[int]]:
    """Return the sections that every split has, and the image ids."""
    header: dict[str, Any] = {"info": {}, "licenses": [], "categories": []}
    image_ids: list[int] = []
    for record in read_coco(path, _NEEDS, only=("images", *_HEADER), quiet=True):
        if isinstance(record, Image):
            image_ids.append(record.id)
        elif isinstance(record, Category):
            header["categories"].append(record.raw)
        elif isinstance(record, Section) and record.name == "licenses":
            header["licenses"].append(record.content)
        elif isinstance(record, Section) and isinstance(record.content, dict):
            header["info"] = record.content
    for section, records in (("images", image_ids), ("categories", header["categories"])):
        if not records:
            raise DataError(
                f"{path}: has no {section}; splits need annotations with classes, "
                "such as COCO's instances_train2017.json"
            )
    try:
        json_text(header)
    except Refused as reason:
        raise DataError(f"{path}: {reason}") from None
    return header, image_ids


def _ranks(image_ids: list[int], seed: int) -> dict[int, int]:
    """Return {image id: rank in a random order}; digests, unlike generators, never change."""
    digests = {one: hashlib.sha256(f"{seed}/{one}".encode()).digest() for one in image_ids}
    return {one: rank for rank, one in enumerate(sorted(image_ids, key=digests.__getitem__))}
