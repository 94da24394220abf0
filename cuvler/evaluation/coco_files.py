"""Read ground truth and results for scoring, and check that they match."""

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
    """Content of a file: its name for messages, images by id, and annotations or results."""

    name: str
    images: dict[int, Record]
    records: list[Record]
    category_ids: list[int]
    category_names: dict[int, str] = field(default_factory=dict)


def read_ground_truth(source: Source) -> Records:
    """Read a COCO annotation file, given by its path or content.

    Raises:
        DataError: the file is not a COCO annotation file, a record has no id, an image is listed
            twice, or an annotation's image is not listed.
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
    unlisted = {a["image_id"] for a in annotations} - images.keys()
    if unlisted:
        raise DataError(f"{name}: annotations of images that are not listed: {_few(unlisted)}")
    categories = {a.get("category_id", 1) for a in annotations}
    categories |= {kind["id"] for kind in kinds}
    names = {kind["id"]: kind["name"] for kind in kinds if "name" in kind}
    return Records(name, images, annotations, sorted(categories), names)


def read_results(source: Source, truth: Records) -> Records:
    """Read COCO results, or COCO annotations (pseudo-masks).

    If no annotation has a score, as in MaskCut's published file, all get score 1.

    Raises:
        DataError: the file has neither format; an image is not in the ground truth, or differs
            from it in file name or size; a score is missing or not finite.
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
            logger.info("%s: annotations have no scores; all get score 1", name)
            content = [{**record, "score": 1.0} for record in listed]
    records = _records(name, "result", content, "image_id")
    _check_scores(name, records)
    _check_same_images(name, images, records, truth)
    seen = len({record["image_id"] for record in records})
    # Images without results are either empty or were left out: log their number.
    logger.info("%s: %d results on %d of %d images", name, len(records), seen, len(truth.images))
    return Records(name, images, records, sorted({r.get("category_id", 1) for r in records}))


def _records(name: str, kind: str, records: Any, key: str) -> list[Record]:
    """Check that this is a list of records with an integer ``key``."""
    if not isinstance(records, list):
        raise DataError(f"{name}: {str(records)[:80]} is not a list of {kind} records")
    for index, record in enumerate(records):
        if not isinstance(record, Mapping) or not isinstance(record.get(key), int):
            raise DataError(
                f"{name}: {kind} {index}: {key!r} must be an integer: {str(record)[:80]}"
            )
    return records


def _check_scores(name: str, records: Sequence[Record]) -> None:
    if finite_numbers([record.get("score") for record in records]) is not None:
        return
    for index, record in enumerate(records):
        if not is_finite(record.get("score")):
            raise DataError(
                f"{name}: {_label(index, record)}: 'score' must be a finite number, "
                f"not {record.get('score')!r}"
            )


def _check_same_images(
    name: str, images: dict[int, Record], records: list[Record], truth: Records
) -> None:
    unlisted = {record["image_id"] for record in records} - truth.images.keys()
    if unlisted:
        raise DataError(
            f"{name}: results for {len(unlisted)} images that {truth.name} does not list: "
            f"{_few(unlisted)}; both must have the same image ids"
        )
    for image_id in sorted(images.keys() & truth.images.keys()):
        image, true_image = images[image_id], truth.images[image_id]
        sizes = [[entry.get("height"), entry.get("width")] for entry in (image, true_image)]
        if sizes[0] != sizes[1] and all(sizes[0] + sizes[1]):
            raise DataError(
                f"{name}: image {image_id} has {sizes[0]} (height, width) pixels, but {sizes[1]} "
                f"in {truth.name}; both must be made from the same image files"
            )
        ours, theirs = image.get("file_name"), true_image.get("file_name")
        # Folders may differ, because users choose the image root.
        if ours and theirs and PurePath(ours).name != PurePath(theirs).name:
            raise DataError(
                f"{name}: image {image_id} is {ours}, but {theirs} in {truth.name}; "
                "both must have the same image ids"
            )


def has_masks(records: Records) -> bool:
    """Return whether any annotation or result has a mask."""
    return any(record.get("segmentation") for record in records.records)


def prepare_ground_truth(truth: Records, iou_type: IouType, class_agnostic: bool) -> list[Record]:
    """Convert the annotations to the evaluators' format, with ids from 1.

    ``area``, which decides between small, medium and large, is the annotation's, by default that
    of its mask or box; as in COCO, for boxes and masks alike.
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
            raise DataError(f"{where(index)}: area {area!r} is not a finite number")
        record = {
            # Not the file's ids: pycocotools reads an id of 0 as "not matched".
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
    """Convert the results to the evaluators' format, with ids from 1.

    As in detectron2, ``area`` is that of the box if boxes are scored, and of the mask otherwise.
    """
    logger.info("scoring %s", "boxes" if iou_type == "bbox" else "masks")

    def where(index: int) -> str:
        return f"{results.name}: {_label(index, results.records[index])}"

    known = set(truth.category_ids)
    for index, result in enumerate([] if class_agnostic else results.records):
        if result.get("category_id") not in known:
            raise DataError(
                f"{where(index)}: category {result.get('category_id')} is not in {truth.name}"
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
