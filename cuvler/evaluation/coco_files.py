"""Read ground truth and results for scoring, and check that they match."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from cuvler.coco import Annotation, Category, Image, Needs, Source, read_coco
from cuvler.coco.refusals import refusal
from cuvler.coco.values import Refused, Size
from cuvler.errors import DataError
from cuvler.masks import Rle, run_sums

logger = logging.getLogger(__name__)

IouType = Literal["bbox", "segm"]
Record = dict[str, Any]
_KEYS: dict[IouType, str] = {"bbox": "bbox", "segm": "segmentation"}
_RESULTS = Needs(format="either", sections=("annotations",), listed=False, inside=True)


@dataclass(frozen=True)
class Records:
    """Content of a file.

    Attributes:
        name: of the file, for messages.
        needs: what it was read with.
        images: by id.
        records: annotations or results.
        category_names: by id.
    """

    name: str
    needs: Needs
    images: dict[int, Image] = field(default_factory=dict)
    records: list[Annotation] = field(default_factory=list)
    category_names: dict[int, str] = field(default_factory=dict)

    @property
    def category_ids(self) -> list[int]:
        """The categories, in order."""
        return sorted(self.category_names)

    def refuse(self, index: int, reason: object) -> DataError:
        """Return the error that refuses a record."""
        return refusal(self.name, self.needs, index, self.records[index], reason)


def read_ground_truth(source: Source, *, class_agnostic: bool = True) -> Records:
    """Read a COCO annotation file, given by its path or content.

    Args:
        source: a path, or the loaded json.
        class_agnostic: ignore categories; otherwise every annotation must have one of the file's.

    Raises:
        DataError: the file is not COCO annotations, or a record is invalid; see
            :func:`cuvler.coco.read_coco`.
    """
    found = _read(source, Needs(categories=not class_agnostic), "ground truth")
    if not found.records:
        logger.warning("%s: no annotations: scores are undefined", found.name)
    return found


def read_results(source: Source, truth: Records) -> Records:
    """Read COCO results, or COCO annotations (pseudo-masks).

    If no annotation has a score, as in MaskCut's published file, all get score 1.

    Raises:
        DataError: the file has neither format; an image is not in the ground truth, or differs
            from it in file name or size; a score is missing; or a record is invalid, see
            :func:`cuvler.coco.read_coco`.
    """
    sizes = {number: image.size for number, image in truth.images.items()}
    found = _read(source, _RESULTS, "results", sizes)
    _check_scores(found)
    _check_same_images(found, truth)
    seen = len({record.image_id for record in found.records})
    # Images without results are either empty or were left out: log their number.
    counts = len(found.records), seen, len(truth.images)
    logger.info("%s: %d results on %d of %d images", found.name, *counts)
    return found


def _read(
    source: Source, needs: Needs, fallback: str, sizes: Mapping[int, Size | None] | None = None
) -> Records:
    name = str(source) if isinstance(source, str | os.PathLike) else fallback
    found = Records(name, needs)
    for record in read_coco(source, needs, name=name, sizes=sizes):
        if isinstance(record, Annotation):
            found.records.append(record)
        elif isinstance(record, Image):
            found.images[record.id] = record
        elif isinstance(record, Category):
            found.category_names[record.id] = record.name
    return found


def _check_scores(found: Records) -> None:
    """Check that all annotations have a score or none; the reader requires those of results."""
    absent = [index for index, record in enumerate(found.records) if record.score is None]
    if absent and len(absent) < len(found.records):
        raise found.refuse(absent[0], "'score' is missing; other annotations have one")
    if absent:
        logger.info("%s: annotations have no scores; all get score 1", found.name)


def _check_same_images(found: Records, truth: Records) -> None:
    unlisted = {record.image_id for record in found.records} - truth.images.keys()
    if unlisted:
        raise DataError(
            f"{found.name}: results for {len(unlisted)} images that {truth.name} does not list: "
            f"{_few(unlisted)}; both must have the same image ids"
        )
    for image_id in sorted(found.images.keys() & truth.images.keys()):
        image, true_image = found.images[image_id], truth.images[image_id]
        if image.size and true_image.size and image.size != true_image.size:
            sizes = [[height, width] for width, height in (image.size, true_image.size)]
            raise DataError(
                f"{found.name}: image {image_id} has {sizes[0]} (height, width) pixels, but "
                f"{sizes[1]} in {truth.name}; both must be made from the same image files"
            )
        ours, theirs = image.file_name, true_image.file_name
        # Folders may differ, because users choose the image root.
        if ours and theirs and PurePath(ours).name != PurePath(theirs).name:
            raise DataError(
                f"{found.name}: image {image_id} is {ours}, but {theirs} in {truth.name}; "
                "both must have the same image ids"
            )


def has_masks(records: Records) -> bool:
    """Return whether any annotation or result has a mask."""
    return any(record.segmentation is not None for record in records.records)


def prepare_ground_truth(truth: Records, iou_type: IouType, class_agnostic: bool) -> list[Record]:
    """Convert the annotations to the evaluators' format, with ids from 1.

    ``area``, which decides between small, medium and large, is the annotation's, by default that
    of its mask, or of its box; as in COCO, for boxes and masks alike.

    Raises:
        DataError: an annotation lacks a mask and masks are scored, or its image's size, which its
            mask or box needs.
    """
    prepared = []
    for index, annotation in enumerate(truth.records):
        shape = _shape(truth, index, iou_type)
        area = annotation.area
        record = {
            # Not the file's ids: pycocotools reads an id of 0 as "not matched".
            "id": index + 1,
            "image_id": annotation.image_id,
            "category_id": 1 if class_agnostic else annotation.category_id,
            "iscrowd": int(annotation.iscrowd),
            _KEYS[iou_type]: shape,
            "area": _own_area(annotation, shape) if area is None else float(area),
        }
        prepared.append(record)
    return prepared


def prepare_results(
    results: Records, truth: Records, iou_type: IouType, class_agnostic: bool
) -> list[Record]:
    """Convert the results to the evaluators' format, with ids from 1.

    As in detectron2, ``area`` is that of the box if boxes are scored, and of the mask otherwise.

    Raises:
        DataError: as for :func:`prepare_ground_truth`, or a result has a category that the ground
            truth lacks and categories are scored.
    """
    logger.info("scoring %s", "boxes" if iou_type == "bbox" else "masks")
    if not class_agnostic:
        for index, result in enumerate(results.records):
            if result.category_id not in truth.category_names:
                reason = f"category {result.category_id} is not in {truth.name}"
                raise results.refuse(index, reason)
    prepared = []
    for index, result in enumerate(results.records):
        shape = _shape(results, index, iou_type)
        record = {
            "id": index + 1,
            "image_id": result.image_id,
            "category_id": 1 if class_agnostic else result.category_id,
            "iscrowd": 0,
            "score": 1.0 if result.score is None else result.score,
            _KEYS[iou_type]: shape,
            "area": _own_area(result, shape),
        }
        prepared.append(record)
    return prepared


def _shape(records: Records, index: int, iou_type: IouType) -> list[float] | Rle:
    """Return a record's box, or its mask in compressed RLE."""
    record = records.records[index]
    if iou_type == "segm" and record.segmentation is None:
        raise records.refuse(index, "no 'segmentation'; score boxes only (IoU type bbox)")
    try:
        return list(record.box()) if iou_type == "bbox" else record.rle()
    except Refused as reason:
        raise records.refuse(index, reason) from None


def _own_area(record: Annotation, shape: list[float] | Rle) -> float:
    """Return the area of a box or mask in pixels."""
    if isinstance(shape, list):
        return shape[2] * shape[3]
    if record.pixels is not None:
        return float(record.pixels)
    sums = run_sums(shape["counts"])
    assert sums is not None  # our own encoding
    return float(sums[1])


def _few(ids: Iterable[int], limit: int = 5) -> str:
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:limit])) + (", ..." if len(ordered) > limit else "")
