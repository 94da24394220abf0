"""Self-training: a detector's predictions become the next round's annotations.

CuVLER (Arica et al., CVPR 2024) trains once more on what the detector is fairly sure of, its
score as the soft target. CutLER (Wang et al., CVPR 2023, section 3.4) takes what the detector
is sure of and keeps, of the masks it was trained on, those it did not find again.

A prediction keeps its own box: the box head's estimate is often better than the mask's
outline. Areas are counted on the masks.

Both give a COCO json that accounts for every image. An image without annotations stays among
``images`` where any record tells its size, which COCO demands; detectron2 passes over it in
training. Where none does, it is under ``excluded``, for there is nothing to learn from it and
opening it to learn its size would not change that.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pycocotools import mask as coco_mask

from cuvler.annotations import CATEGORIES
from cuvler.coco_json import is_finite, stream_results
from cuvler.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
Predictions = str | os.PathLike[str] | Iterable[Record]

# CutLER: a former annotation that overlaps a prediction this much was found again.
_FOUND_AGAIN = 0.5


def cuvler_annotations(
    predictions: Predictions, images: "pd.DataFrame", *, threshold: float = 0.2
) -> Record:
    """Keep the predictions of ``threshold`` or more; their scores are the soft targets.

    Args:
        predictions: COCO results (a path, read one by one, or records).
        images: the listing of the dataset (columns ``image_id``, ``file_name``).
        threshold: the lowest score kept.

    Returns:
        A COCO json: ``info``, ``images``, ``annotations`` (ids from 1; by image, best
        first), ``excluded``.

    Raises:
        DataError: a prediction is of no image of the listing or has no score or mask, masks
            of an image differ in size, or no prediction reaches the threshold.
    """
    names = dict(zip(images["image_id"].tolist(), images["file_name"].tolist(), strict=True))
    kept = _keep(predictions, names, threshold)
    info = {"recipe": "cuvler", "threshold": threshold}
    return _annotations(info, names, kept, {})


def cutler_annotations(
    previous: Mapping[str, Any], predictions: Predictions, *, threshold: float = 0.7
) -> Record:
    """Keep the predictions of ``threshold`` or more, and the annotations they do not replace.

    A former annotation stays when its mask's IoU with every kept prediction of its image is
    under 0.5.

    Args:
        previous: the COCO json that the detector was trained on; its ``images`` and
            ``excluded`` tell which images there are.
        predictions: COCO results (a path, read one by one, or records).
        threshold: the lowest score kept.

    Returns:
        A COCO json as :func:`cuvler_annotations` gives it; an image's predictions come
        before its former annotations.

    Raises:
        DataError: as for :func:`cuvler_annotations`.
    """
    listed = [*previous["images"], *previous.get("excluded", [])]
    names = {image["id"]: image["file_name"] for image in sorted(listed, key=lambda i: i["id"])}
    kept = _keep(predictions, names, threshold)
    former: dict[int, list[Record]] = {}
    for annotation in previous["annotations"]:
        kept.note_size(annotation["image_id"], annotation["segmentation"]["size"])
        former.setdefault(annotation["image_id"], []).append(annotation)
    for image in previous["images"]:
        kept.note_size(image["id"], [image["height"], image["width"]])
    remaining = {
        image_id: _not_found_again(annotations, kept.records.get(image_id, []))
        for image_id, annotations in former.items()
    }
    info = {"recipe": "cutler", "threshold": threshold}
    return _annotations(info, names, kept, remaining)


@dataclass
class _Kept:
    """The predictions that are kept, by image, and what was learnt on the way."""

    name: str
    records: dict[int, list[Record]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    num_predictions: int = 0
    highest: float | None = None

    def note_size(self, image_id: int, size: Sequence[int]) -> None:
        """Remember an image's height and width, and that all its records agree on them."""
        height, width = size
        known = self.sizes.setdefault(image_id, (height, width))
        if known != (height, width):
            raise DataError(
                f"{self.name}: image {image_id} has masks of {known} and of "
                f"{(height, width)} pixels (height, width)"
            )


def _keep(predictions: Predictions, names: Mapping[int, str], threshold: float) -> _Kept:
    if isinstance(predictions, str | os.PathLike):
        name, records = str(predictions), stream_results(predictions)
    else:
        name, records = "predictions", iter(predictions)
    kept = _Kept(name)
    for number, record in enumerate(records):
        kept.num_predictions += 1
        _check(record, f"{name}: prediction {number}", names)
        kept.note_size(record["image_id"], record["segmentation"]["size"])
        kept.highest = max(record["score"], kept.highest or 0)
        if record["score"] >= threshold:
            kept.records.setdefault(record["image_id"], []).append(record)
    if not kept.records:
        highest = "there are no predictions"
        if kept.highest is not None:
            highest = f"the highest of {kept.num_predictions} is {kept.highest:.3g}"
        raise DataError(
            f"{name}: no prediction has a score of {threshold:g} or more ({highest}); "
            "lower the threshold or train the detector longer"
        )
    return kept


def _check(record: Record, where: str, names: Mapping[int, str]) -> None:
    for key in ("image_id", "score", "segmentation", "bbox"):
        if key not in record:
            raise DataError(f"{where} has no {key!r}")
    if record["image_id"] not in names:
        raise DataError(
            f"{where} is of image {record['image_id']}, which is not one of the images to train on"
        )
    score = record["score"]
    if not (is_finite(score) and 0 <= score <= 1):
        raise DataError(
            f"{where} (image {record['image_id']}) has the score {score!r}, not one of 0 to 1"
        )


def _not_found_again(annotations: list[Record], predictions: list[Record]) -> list[Record]:
    if not predictions:
        return annotations
    overlaps = coco_mask.iou(
        [annotation["segmentation"] for annotation in annotations],
        [prediction["segmentation"] for prediction in predictions],
        [0] * len(predictions),
    )
    best = overlaps.max(axis=1)
    return [a for a, overlap in zip(annotations, best, strict=True) if overlap < _FOUND_AGAIN]


def _annotations(
    info: Record,
    names: Mapping[int, str],
    kept: _Kept,
    remaining: Mapping[int, list[Record]],
) -> Record:
    annotations: list[Record] = []
    images, excluded = [], []
    num_kept = 0
    for image_id, file_name in names.items():
        if image_id not in kept.sizes:
            image = {"id": image_id, "file_name": file_name, "status": "no_prediction"}
            excluded.append(image | {"reason": "no prediction tells its size"})
            continue
        height, width = kept.sizes[image_id]
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        best_first = sorted(kept.records.get(image_id, []), key=lambda record: -record["score"])
        predictions = _with_pixels(best_first)
        num_kept += len(predictions)
        for record in [*predictions, *_with_pixels(remaining.get(image_id, []))]:
            annotations.append({"id": len(annotations) + 1, **record})
    counts = {
        "num_predictions": kept.num_predictions,
        "num_predictions_kept": num_kept,
        "num_former_kept": len(annotations) - num_kept,
    }
    return {
        "info": info | counts,
        "licenses": [],
        "categories": CATEGORIES,
        "images": images,
        "annotations": annotations,
        "excluded": excluded,
    }


def _with_pixels(records: list[Record]) -> list[Record]:
    """Give the records as annotations, areas counted; a mask without pixels teaches nothing."""
    annotations = []
    for record in records:
        area = int(coco_mask.area(record["segmentation"]))
        if area:
            fixed = {"category_id": 1, "iscrowd": 0, "area": area}
            annotations.append({k: v for k, v in record.items() if k != "id"} | fixed)
    return annotations
