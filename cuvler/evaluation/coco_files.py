"""Read ground truth and results, and refuse what cannot be scored honestly."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from cuvler.coco_json import is_finite
from cuvler.errors import DataError
from cuvler.evaluation.geometry import (
    areas,
    boxes,
    check_inside,
    finite_numbers,
    ground_truth_masks,
    result_masks,
)
from cuvler.files import StrPath, read_json

logger = logging.getLogger(__name__)

IouType = Literal["bbox", "segm"]
Source = StrPath | Mapping[str, Any] | list[dict[str, Any]]
Record = dict[str, Any]
_KEYS: dict[IouType, str] = {"bbox": "bbox", "segm": "segmentation"}


@dataclass(frozen=True)
class Records:
    """What was read: the name for messages, the images by id and the annotations or results."""

    name: str
    images: dict[int, Record]
    records: list[Record]
    category_ids: list[int]
    category_names: dict[int, str] = field(default_factory=dict)


def read_ground_truth(source: Source) -> Records:
    """Read a COCO annotation file (or take its loaded content).

    Raises:
        DataError: not a COCO annotation file, a record without an id, an image listed twice, or
            an annotation of an image that is not listed.
    """
    name, content = _load(source, "ground truth")
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= content.keys():
        raise DataError(f"{name}: not COCO annotations (needs 'images' and 'annotations')")
    listed = _records(name, "image", content["images"], "id")
    annotations = _records(name, "annotation", content["annotations"], "image_id")
    kinds = _records(name, "category", content.get("categories") or [], "id")
    images: dict[int, Record] = {}
    for image in listed:
        if image["id"] in images:
            raise DataError(f"{name}: image id {image['id']} is listed twice")
        images[image["id"]] = image
    strangers = {a["image_id"] for a in annotations} - images.keys()
    if strangers:
        raise DataError(f"{name}: annotations of images that are not listed: {_few(strangers)}")
    categories = {a.get("category_id", 1) for a in annotations}
    categories |= {kind["id"] for kind in kinds}
    names = {kind["id"]: kind["name"] for kind in kinds if "name" in kind}
    return Records(name, images, annotations, sorted(categories), names)


def read_results(source: Source, truth: Records) -> Records:
    """Read COCO results, or COCO annotations (pseudo-masks).

    Annotations of which none has a score, such as MaskCut's published ones, get score 1.

    Raises:
        DataError: neither format; results for images the ground truth does not know; the same
            image id under another file name (two id spaces) or of another size; a score missing
            or not finite.
    """
    name, content = _load(source, "results")
    images: dict[int, Record] = {}
    if isinstance(content, Mapping):
        if "annotations" not in content:
            raise DataError(f"{name}: neither a list of results nor COCO annotations")
        listed = _records(name, "image", content.get("images") or [], "id")
        images = {image["id"]: image for image in listed}
        content = content["annotations"]
        listed = _records(name, "result", content, "image_id")
        if listed and not any("score" in record for record in listed):
            logger.info("%s: annotations without scores count with score 1", name)
            content = [{**record, "score": 1.0} for record in listed]
    records = _records(name, "result", content, "image_id")
    _check_scores(name, records)
    _check_same_images(name, images, records, truth)
    seen = len({record["image_id"] for record in records})
    # An image without results may be one in which nothing was found, or one that was left out.
    logger.info("%s: %d results on %d of %d images", name, len(records), seen, len(truth.images))
    return Records(name, images, records, sorted({r.get("category_id", 1) for r in records}))


def _records(name: str, kind: str, records: Any, key: str) -> list[Record]:
    """Refuse what is not a list of records that have a whole number by this key."""
    if not isinstance(records, list):
        raise DataError(f"{name}: {str(records)[:80]} is not a list of records, one {kind} each")
    for index, record in enumerate(records):
        if not isinstance(record, Mapping) or not isinstance(record.get(key), int):
            raise DataError(
                f"{name}: {kind} {index} needs a whole number as {key!r}: {str(record)[:80]}"
            )
    return records


def _check_scores(name: str, records: Sequence[Record]) -> None:
    if finite_numbers([record.get("score") for record in records]) is not None:
        return
    for index, record in enumerate(records):
        if not is_finite(record.get("score")):
            raise DataError(
                f"{name}: {_label(index, record)} needs a finite 'score', "
                f"not {record.get('score')!r}"
            )


def _check_same_images(
    name: str, images: dict[int, Record], records: list[Record], truth: Records
) -> None:
    strangers = {record["image_id"] for record in records} - truth.images.keys()
    if strangers:
        raise DataError(
            f"{name}: results for {len(strangers)} images that {truth.name} does not list: "
            f"{_few(strangers)}; both must number the images alike"
        )
    for image_id in sorted(images.keys() & truth.images.keys()):
        image, true_image = images[image_id], truth.images[image_id]
        sizes = [[entry.get("height"), entry.get("width")] for entry in (image, true_image)]
        if sizes[0] != sizes[1] and all(sizes[0] + sizes[1]):
            raise DataError(
                f"{name}: image {image_id} is of {sizes[0]} (height, width) pixels, but of "
                f"{sizes[1]} in {truth.name}; both must be of the same image files"
            )
        ours, theirs = image.get("file_name"), true_image.get("file_name")
        # Folders may differ (a dataset's root is the user's choice), names may not.
        if ours and theirs and PurePath(ours).name != PurePath(theirs).name:
            raise DataError(
                f"{name}: image {image_id} is {ours}, but {theirs} in {truth.name}; "
                "both must number the images alike"
            )


def has_masks(records: Records) -> bool:
    """Whether any annotation or result carries a mask."""
    return any(record.get("segmentation") for record in records.records)


def prepare_ground_truth(truth: Records, iou_type: IouType, class_agnostic: bool) -> list[Record]:
    """Give the annotations as the evaluators want them, ids dense from 1.

    Sizes (small, medium, large) go by the annotation's ``area``, where it has none by its mask
    or box, for boxes and masks alike, as COCO does.
    """

    def where(index: int) -> str:
        return f"{truth.name}: annotation {truth.records[index].get('id', index + 1)}"

    shapes: list[Any]
    if iou_type == "bbox":
        shapes = boxes(truth.records, where)
    else:
        shapes = ground_truth_masks(truth.records, truth.images, where)
    own = areas(shapes, where)
    prepared = []
    for index, (annotation, shape) in enumerate(zip(truth.records, shapes, strict=True)):
        area = annotation.get("area")
        if area is not None and not is_finite(area):
            raise DataError(f"{where(index)} has the area {area!r}, which is no number")
        record = {
            # pycocotools takes an id of 0 for "not matched", so ids are given anew.
            "id": index + 1,
            "image_id": annotation["image_id"],
            "category_id": 1 if class_agnostic else annotation.get("category_id", 1),
            "iscrowd": int(annotation.get("iscrowd", 0)),
            _KEYS[iou_type]: shape,
            "area": own[index] if area is None else float(area),
        }
        prepared.append(record)
    return prepared


def prepare_results(
    results: Records, truth: Records, iou_type: IouType, class_agnostic: bool
) -> list[Record]:
    """Give the results as the evaluators want them, ids dense from 1.

    Sizes go by the box when boxes are scored and by the mask when masks are, as detectron2
    does.
    """
    logger.info("scoring %s", "boxes" if iou_type == "bbox" else "masks")

    def where(index: int) -> str:
        return f"{results.name}: {_label(index, results.records[index])}"

    known = set(truth.category_ids)
    for index, result in enumerate([] if class_agnostic else results.records):
        if result.get("category_id") not in known:
            raise DataError(
                f"{where(index)} is of category {result.get('category_id')}, "
                f"unknown to {truth.name}"
            )
    shapes: list[Any]
    if iou_type == "bbox":
        shapes = boxes(results.records, where)
        check_inside(shapes, results.records, truth.images, where)
    else:
        shapes = result_masks(results.records, truth.images, where)
    return [
        {
            "id": number,
            "image_id": result["image_id"],
            "category_id": 1 if class_agnostic else result["category_id"],
            "iscrowd": 0,
            "score": float(result["score"]),
            _KEYS[iou_type]: shape,
            "area": area,
        }
        for number, (result, shape, area) in enumerate(
            zip(results.records, shapes, areas(shapes, where), strict=True), start=1
        )
    ]


def _load(source: Source, fallback: str) -> tuple[str, Any]:
    if isinstance(source, str | os.PathLike):
        return str(source), read_json(source)
    return fallback, source


def _label(index: int, record: Record) -> str:
    return f"result {index} (image {record['image_id']})"


def _few(ids: Iterable[int], limit: int = 5) -> str:
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:limit])) + (", ..." if len(ordered) > limit else "")
