"""Read ground truth and results, and refuse what cannot be scored honestly."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from pycocotools import mask as coco_mask

from cuvler.coco_json import is_finite, to_rle
from cuvler.errors import DataError
from cuvler.files import read_json

IouType = Literal["bbox", "segm"]
Source = str | os.PathLike[str] | Mapping[str, Any] | list[dict[str, Any]]
Record = dict[str, Any]


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
        DataError: not a COCO annotation file, an image listed twice, or an annotation of an
            image that is not listed.
    """
    name, content = _load(source, "ground truth")
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= content.keys():
        raise DataError(f"{name}: not COCO annotations (needs 'images' and 'annotations')")
    images: dict[int, Record] = {}
    for image in content["images"]:
        if image["id"] in images:
            raise DataError(f"{name}: image id {image['id']} is listed twice")
        images[image["id"]] = image
    annotations = list(content["annotations"])
    strangers = {a["image_id"] for a in annotations} - images.keys()
    if strangers:
        raise DataError(f"{name}: annotations of images that are not listed: {_few(strangers)}")
    categories = {a.get("category_id", 1) for a in annotations}
    categories |= {category["id"] for category in content.get("categories", [])}
    names = {one["id"]: one["name"] for one in content.get("categories", []) if "name" in one}
    return Records(name, images, annotations, sorted(categories), names)


def read_results(source: Source, truth: Records) -> Records:
    """Read COCO results, or COCO annotations that carry scores (pseudo-masks).

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
        images = {image["id"]: image for image in content.get("images", [])}
        content = content["annotations"]
    records = list(content)
    for index, record in enumerate(records):
        if "image_id" not in record:
            raise DataError(f"{name}: result {index} has no 'image_id'")
        if not is_finite(record.get("score")):
            raise DataError(
                f"{name}: {_label(index, record)} needs a finite 'score', "
                f"not {record.get('score')!r}"
            )
    _check_same_images(name, images, records, truth)
    return Records(name, images, records, sorted({r.get("category_id", 1) for r in records}))


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
    prepared = []
    for number, annotation in enumerate(truth.records, start=1):
        where = f"{truth.name}: annotation {annotation.get('id', number)}"
        # pycocotools takes an id of 0 for "not matched", so ids are given anew.
        record: Record = {"id": number, "image_id": annotation["image_id"]}
        record["category_id"] = 1 if class_agnostic else annotation.get("category_id", 1)
        record["iscrowd"] = int(annotation.get("iscrowd", 0))
        record["bbox"] = _box(annotation, where) if iou_type == "bbox" else None
        if iou_type == "segm":
            image = truth.images[annotation["image_id"]]
            record["segmentation"] = _ground_truth_rle(annotation, image, where)
        area = annotation.get("area")
        record["area"] = _area(record, iou_type) if area is None else float(area)
        prepared.append(record)
    return prepared


def prepare_results(
    results: Records, truth: Records, iou_type: IouType, class_agnostic: bool
) -> list[Record]:
    """Give the results as the evaluators want them, ids dense from 1.

    Sizes go by the box when boxes are scored and by the mask when masks are, as detectron2
    does.
    """
    prepared = []
    known = set(truth.category_ids)
    for index, result in enumerate(results.records):
        where = f"{results.name}: {_label(index, result)}"
        category = 1 if class_agnostic else result.get("category_id")
        if not class_agnostic and category not in known:
            raise DataError(f"{where} is of category {category}, unknown to {truth.name}")
        record: Record = {"id": index + 1, "image_id": result["image_id"], "iscrowd": 0}
        record["category_id"] = category
        record["score"] = float(result["score"])
        image = truth.images[result["image_id"]]
        record["bbox"] = _result_box(result, image, where) if iou_type == "bbox" else None
        if iou_type == "segm":
            record["segmentation"] = _result_rle(result, image, where)
        record["area"] = _area(record, iou_type)
        prepared.append(record)
    return prepared


def _load(source: Source, fallback: str) -> tuple[str, Any]:
    if isinstance(source, str | os.PathLike):
        return str(source), read_json(source)
    return fallback, source


def _box(record: Record, where: str) -> list[float]:
    box = record.get("bbox")
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise DataError(f"{where} needs a 'bbox' of four numbers, not {box!r}")
    if not all(is_finite(side) for side in box) or min(box[2:]) < 0:
        raise DataError(f"{where} has the impossible box {list(box)}")
    return [float(side) for side in box]


def _result_box(result: Record, image: Record, where: str) -> list[float]:
    box = _box(result, where)
    height, width = image.get("height"), image.get("width")
    # Reaching over the border is common; beginning beyond it happens on images of another size.
    if height and width and (box[0] > width or box[1] > height):
        raise DataError(
            f"{where} has the box {box}, which lies outside of its image of "
            f"{[height, width]} (height, width) pixels"
        )
    return box


def _ground_truth_rle(annotation: Record, image: Record, where: str) -> Any:
    segmentation = annotation.get("segmentation")
    if not segmentation:
        raise DataError(f"{where} has no 'segmentation'; score boxes only (iou type bbox)")
    height, width = _size(image, where)
    if isinstance(segmentation, Mapping):
        _check_size(segmentation, [height, width], where)
    return to_rle(annotation, height, width)


def _result_rle(result: Record, image: Record, where: str) -> Any:
    rle = result.get("segmentation")
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), str | bytes):
        raise DataError(f"{where} needs a 'segmentation' in compressed RLE")
    _check_size(rle, list(_size(image, where)), where)
    return rle


def _size(image: Record, where: str) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    if not height or not width:
        raise DataError(f"{where}: the ground truth gives no size for image {image['id']}")
    return int(height), int(width)


def _check_size(rle: Mapping[str, Any], size: list[int], where: str) -> None:
    if list(rle["size"]) != size:
        raise DataError(
            f"{where} has a mask of {list(rle['size'])} (height, width) pixels "
            f"on an image of {size}"
        )


def _area(record: Record, iou_type: IouType) -> float:
    if iou_type == "segm":
        return float(coco_mask.area(record["segmentation"]))
    return float(record["bbox"][2] * record["bbox"][3])


def _label(index: int, record: Record) -> str:
    return f"result {index} (image {record['image_id']})"


def _few(ids: Iterable[int], limit: int = 5) -> str:
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:limit])) + (", ..." if len(ordered) > limit else "")
