"""COCO metrics of two result files, by object size and per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Source
from cuvler.evaluation.coco_files import (
    IouType,
    Record,
    Records,
    has_masks,
    prepare_ground_truth,
    prepare_results,
    read_ground_truth,
    read_results,
)
from cuvler.evaluation.metrics import accumulate

SIZES = ("all", "small", "medium", "large")
_LIMITS = (0.0, 32.0**2, 96.0**2, np.inf)  # pixels
_IMAGES = 500  # images evaluated at a time; memory grows with their number
_Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Score:
    """Metrics of both files in percent, A's first; ``None`` if there is no object.

    Attributes:
        name: of the size, or of the image file.
        objects: number of ground-truth objects.
        ap: AP over IoU 0.50:0.05:0.95.
        ap50: AP at IoU 0.50.
        ar: recall, averaged over IoU 0.50:0.05:0.95.
    """

    name: str
    objects: int
    ap: _Pair
    ap50: _Pair
    ar: _Pair

    @property
    def change(self) -> float:
        """AP of B minus AP of A."""
        first, second = self.ap
        return 0.0 if first is None or second is None else second - first


@dataclass(frozen=True)
class Comparison:
    """Metrics of two result files.

    Attributes:
        iou_type: boxes or masks.
        sizes: one score per size, in the order of ``SIZES``.
        images: image id -> score, for images with objects; largest difference first.
    """

    iou_type: IouType
    sizes: list[Score]
    images: dict[int, Score]


def compare(
    ground_truth: Source,
    first: Source,
    second: Source,
    *,
    iou_type: IouType | None = None,
    max_detections: int = 100,
) -> Comparison:
    """Evaluate two result files on the same ground truth, class-agnostically.

    The AP of an image is COCO's AP of a data set of that image alone.

    Args:
        ground_truth: see :func:`cuvler.evaluation.evaluate`.
        first: results A, see :func:`cuvler.evaluation.evaluate`.
        second: results B.
        iou_type: what to evaluate; default: masks if all files have them, else boxes.
        max_detections: number of top-scoring detections evaluated per image.

    Raises:
        DataError: see :func:`cuvler.evaluation.evaluate`.
    """
    truth = read_ground_truth(ground_truth)
    results = [read_results(source, truth) for source in (first, second)]
    if iou_type is None:
        iou_type = "segm" if all(has_masks(file) for file in (truth, *results)) else "bbox"
    annotations = prepare_ground_truth(truth, iou_type, class_agnostic=True)
    prepared = [prepare_results(file, truth, iou_type, class_agnostic=True) for file in results]
    ids = sorted(truth.images)
    whole = [
        accumulate(ids, [1], annotations, records, iou_type, [max_detections])
        for records in prepared
    ]
    sizes = [
        _score(name, _objects(annotations, index), whole, 0, index)
        for index, name in enumerate(SIZES)
    ]
    images = _by_image(truth, annotations, prepared, iou_type, max_detections)
    order = sorted(images, key=lambda number: (-abs(images[number].change), number))
    return Comparison(iou_type, sizes, {number: images[number] for number in order})


_Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def _by_image(
    truth: Records,
    annotations: Sequence[Record],
    results: Sequence[Sequence[Record]],
    iou_type: IouType,
    max_detections: int,
) -> dict[int, Score]:
    counts: dict[int, int] = {}
    for record in annotations:
        if not record["iscrowd"]:
            counts[record["image_id"]] = counts.get(record["image_id"], 0) + 1
    ids = sorted(counts)
    files = [_grouped(records) for records in (annotations, *results)]
    images = {}
    for start in range(0, len(ids), _IMAGES):
        chunk = ids[start : start + _IMAGES]
        # Each image becomes a category of a single image, because the evaluator's results are per
        # category.
        objects, *found = (_as_categories(groups, chunk) for groups in files)
        categories = list(range(1, len(chunk) + 1))
        arrays = [
            accumulate([1], categories, objects, records, iou_type, [max_detections])
            for records in found
        ]
        for index, number in enumerate(chunk):
            name = truth.images[number].file_name or str(number)
            images[number] = _score(name, counts[number], arrays, index, 0)
    return images


def _grouped(records: Sequence[Record]) -> dict[int, list[Record]]:
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(record["image_id"], []).append(record)
    return groups


def _as_categories(groups: dict[int, list[Record]], ids: Sequence[int]) -> list[Record]:
    return [
        record | {"image_id": 1, "category_id": category}
        for category, number in enumerate(ids, start=1)
        for record in groups.get(number, [])
    ]


def _score(name: str, objects: int, arrays: Sequence[_Arrays], category: int, size: int) -> Score:
    first, second = (
        (
            _percent(precision[:, :, category, size, 0]),
            _percent(precision[0, :, category, size, 0]),
            _percent(recall[:, category, size, 0]),
        )
        for precision, recall in arrays
    )
    ap, ap50, ar = zip(first, second, strict=True)
    return Score(name, objects, ap, ap50, ar)


def _percent(values: NDArray[np.float64]) -> float | None:
    defined = values[values > -1]
    return 100 * float(defined.mean()) if defined.size else None


def _objects(annotations: Sequence[Record], size: int) -> int:
    """Count the objects of a size; as in COCO, limits are inclusive on both sides."""
    low, high = (0.0, np.inf) if size == 0 else _LIMITS[size - 1 : size + 1]
    return sum(low <= a["area"] <= high and not a["iscrowd"] for a in annotations)
