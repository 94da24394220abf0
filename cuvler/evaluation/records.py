"""Read ground truth and results, and refuse what cannot be scored honestly."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cuvler.coco_json import is_finite, to_rle
from cuvler.errors import DataError
from cuvler.files import read_json

IouType = Literal["bbox", "segm"]
Source = str | os.PathLike[str] | Mapping[str, Any] | list[dict[str, Any]]
Record = dict[str, Any]
Where = Callable[[int], str]  # names the record of an index in messages
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
    _check_scores(name, records)
    _check_same_images(name, images, records, truth)
    return Records(name, images, records, sorted({r.get("category_id", 1) for r in records}))


def _check_scores(name: str, records: Sequence[Record]) -> None:
    scores = _numbers([record.get("score") for record in records])
    if scores is not None and all("image_id" in record for record in records):
        return
    for index, record in enumerate(records):
        if "image_id" not in record:
            raise DataError(f"{name}: result {index} has no 'image_id'")
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

    shapes: list[Any] = (
        _boxes(truth.records, where)
        if iou_type == "bbox"
        else [
            _ground_truth_rle(annotation, truth.images[annotation["image_id"]], where(index))
            for index, annotation in enumerate(truth.records)
        ]
    )
    areas = _areas(shapes, iou_type)
    prepared = []
    for index, (annotation, shape) in enumerate(zip(truth.records, shapes, strict=True)):
        area = annotation.get("area")
        record = {
            # pycocotools takes an id of 0 for "not matched", so ids are given anew.
            "id": index + 1,
            "image_id": annotation["image_id"],
            "category_id": 1 if class_agnostic else annotation.get("category_id", 1),
            "iscrowd": int(annotation.get("iscrowd", 0)),
            _KEYS[iou_type]: shape,
            "area": areas[index] if area is None else float(area),
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
        shapes = _boxes(results.records, where)
        _check_inside(shapes, results.records, truth, where)
    else:
        shapes = [
            _result_rle(result, truth.images[result["image_id"]], where, index)
            for index, result in enumerate(results.records)
        ]
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
            zip(results.records, shapes, _areas(shapes, iou_type), strict=True), start=1
        )
    ]


def _load(source: Source, fallback: str) -> tuple[str, Any]:
    if isinstance(source, str | os.PathLike):
        return str(source), read_json(source)
    return fallback, source


def _numbers(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Give an array of finite numbers; None if there is anything else among the values."""
    try:
        array = np.array(values)
    except ValueError:  # of different lengths
        return None
    if array.size and array.dtype.kind not in "iuf":
        return None
    array = array.astype(np.float64)
    return array if np.isfinite(array).all() else None


def _boxes(records: Sequence[Record], where: Where) -> list[list[float]]:
    """Check and give all boxes at once; one by one only to name the wrong one."""
    boxes = _numbers([record.get("bbox") for record in records])
    if boxes is not None and boxes.reshape(-1, 4).shape == (len(records), 4):
        boxes = boxes.reshape(-1, 4)
        if (boxes[:, 2:] >= 0).all():
            found: list[list[float]] = boxes.tolist()
            return found
    return [_box(record, where(index)) for index, record in enumerate(records)]


def _box(record: Record, where: str) -> list[float]:
    box = record.get("bbox")
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise DataError(f"{where} needs a 'bbox' of four numbers, not {box!r}")
    if not all(is_finite(side) for side in box) or min(box[2:]) < 0:
        raise DataError(f"{where} has the impossible box {list(box)}")
    return [float(side) for side in box]


def _check_inside(
    boxes: Sequence[list[float]], records: Sequence[Record], truth: Records, where: Where
) -> None:
    """Refuse boxes that begin beyond their image: it was of another size.

    Reaching over the border is common.
    """
    sizes = {
        number: (image["width"], image["height"])
        for number, image in truth.images.items()
        if image.get("width") and image.get("height")
    }
    for index, (box, record) in enumerate(zip(boxes, records, strict=True)):
        size = sizes.get(record["image_id"])
        if size and (box[0] > size[0] or box[1] > size[1]):
            raise DataError(
                f"{where(index)} has the box {box}, which lies outside of its image of "
                f"{[size[1], size[0]]} (height, width) pixels"
            )


def _ground_truth_rle(annotation: Record, image: Record, where: str) -> Any:
    segmentation = annotation.get("segmentation")
    if not segmentation:
        raise DataError(f"{where} has no 'segmentation'; score boxes only (iou type bbox)")
    height, width = _size(image, where)
    if isinstance(segmentation, Mapping):
        _check_size(segmentation, [height, width], where)
    return to_rle(annotation, height, width)


def _result_rle(result: Record, image: Record, where: Where, index: int) -> Any:
    rle = result.get("segmentation")
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), str | bytes):
        raise DataError(f"{where(index)} needs a 'segmentation' in compressed RLE")
    size = [image.get("height"), image.get("width")]
    if list(rle["size"]) != size:
        _check_size(rle, list(_size(image, where(index))), where(index))
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


def _areas(shapes: list[Any], iou_type: IouType) -> list[float]:
    if iou_type == "segm":
        # One by one: pycocotools cannot take more than 255 at once with NumPy 2.
        return [float(coco_mask.area(rle)) for rle in shapes]
    return [width * height for _, _, width, height in shapes]


def _label(index: int, record: Record) -> str:
    return f"result {index} (image {record['image_id']})"


def _few(ids: Iterable[int], limit: int = 5) -> str:
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:limit])) + (", ..." if len(ordered) > limit else "")
