"""COCO metrics of two result files, by object size and per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Source
from cuvler.evaluation.coco_files import BOTH, Records, read_ground_truth, read_results
from cuvler.evaluation.compact import IouType
from cuvler.evaluation.matching import (
    Arrays,
    Batch,
    accumulate,
    annotations_of,
    match,
    results_of,
)
from cuvler.files import StrPath

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
    folder: StrPath | None = None,
) -> Comparison:
    """Evaluate two result files on the same ground truth, class-agnostically.

    The AP of an image is COCO's AP of a data set of that image alone.

    Args:
        ground_truth: see :func:`cuvler.evaluation.evaluate`.
        first: results A, see :func:`cuvler.evaluation.evaluate`.
        second: results B.
        iou_type: what to evaluate; default: masks if all files have them, else boxes.
        max_detections: number of top-scoring detections evaluated per image.
        folder: of the temporary files of the results' masks; by default the system's.

    Raises:
        DataError: see :func:`cuvler.evaluation.evaluate`.
    """
    wanted = BOTH if iou_type is None else [iou_type]
    truth = read_ground_truth(ground_truth, wanted)
    files = [read_results(source, truth, wanted, folder=folder) for source in (first, second)]
    if iou_type is None:
        iou_type = "segm" if all(file.records.has_masks for file in (truth, *files)) else "bbox"
    whole = [accumulate(truth, results, iou_type, [max_detections]) for results in files]
    areas = truth.records.areas(np.arange(len(truth.records)), iou_type)
    areas = areas[~truth.records.crowds]
    sizes = [
        _score(name, _objects(areas, index), whole, 0, index) for index, name in enumerate(SIZES)
    ]
    images = _by_image(truth, files, iou_type, max_detections)
    order = sorted(images, key=lambda number: (-abs(images[number].change), number))
    return Comparison(iou_type, sizes, {number: images[number] for number in order})


def _by_image(
    truth: Records, files: Sequence[Records], iou_type: IouType, max_detections: int
) -> dict[int, Score]:
    objects = truth.records.image_ids[~truth.records.crowds]
    counts = dict(
        zip(*(part.tolist() for part in np.unique(objects, return_counts=True)), strict=True)
    )
    ids = sorted(truth.images)
    images = {}
    for start in range(0, len(ids), _IMAGES):
        chunk = ids[start : start + _IMAGES]
        arrays = [
            match(
                [_as_categories(truth, results, iou_type, chunk)],
                iou_type,
                [max_detections],
                len(chunk),
            )
            for results in files
        ]
        for index, number in enumerate(chunk):
            if number in counts:
                name = truth.images[number].file_name or str(number)
                images[number] = _score(name, counts[number], arrays, index, 0)
    return images


def _as_categories(
    truth: Records, results: Records, iou_type: IouType, ids: Sequence[int]
) -> Batch:
    """Return a single image with a category for each of ``ids``: results are per category."""
    sides = []
    for file in (truth, results):
        rows = file.records.rows_of(ids)
        categories = np.searchsorted(ids, file.records.image_ids[rows]) + 1
        sides.append((file.records, rows, iou_type, np.ones_like(categories), categories))
    return [1], annotations_of(*sides[0]), results_of(*sides[1])


def _score(name: str, objects: int, arrays: Sequence[Arrays], category: int, size: int) -> Score:
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


def _objects(areas: NDArray[np.float64], size: int) -> int:
    """Count the objects of a size; as in COCO, limits are inclusive on both sides."""
    low, high = (0.0, np.inf) if size == 0 else _LIMITS[size - 1 : size + 1]
    return int(((low <= areas) & (areas <= high)).sum())
