"""COCO metrics (Lin et al., Microsoft COCO, ECCV 2014) of detections or pseudo-masks.

The tests check that the metrics equal pycocotools' to 1e-9.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Source
from cuvler.errors import DataError
from cuvler.evaluation.coco_files import BOTH, Records, read_ground_truth, read_results
from cuvler.evaluation.compact import IouType
from cuvler.evaluation.matching import accumulate
from cuvler.files import StrPath

logger = logging.getLogger(__name__)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")
Metrics = dict[str, float | None]
Curves = dict[str, list[float]]
CURVES = {"AP50": 0, "AP75": 5}  # name -> index of the IoU

# COCO's area ranges, in the order of the evaluators' arrays.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)


def evaluate(
    ground_truth: Source,
    results: Source,
    *,
    iou_type: IouType = "bbox",
    class_agnostic: bool = True,
    max_detections: int = 100,
) -> Metrics:
    """Score detections or pseudo-masks against ground truth.

    Args:
        ground_truth: COCO annotations: a path, or the loaded json.
        results: COCO results or COCO annotations: a path, or the loaded json. Images are matched
            by id. Annotations get score 1 if none has a ``score``.
        iou_type: ``bbox`` scores boxes, ``segm`` masks.
        class_agnostic: treat all categories as one; otherwise average over categories.
        max_detections: number of top-scoring detections used per image (LVIS's own evaluation:
            300; the published scores, even on LVIS: 100).

    Returns:
        AP (over IoU 0.50:0.05:0.95), AP50, AP75, APs, APm, APl (areas up to 32 ** 2, up to
        96 ** 2, above) and AR1, AR10, AR100, in percent; ``None`` if the ground truth
        has no such objects. If ``max_detections`` is above 100, also AR at that number (LVIS:
        AR300). Unless class-agnostic, also the AP of each category, named like in detectron2:
        ``AP-person``; with the id where several have that name, ``AP-person (7)``.

    Raises:
        DataError: the files do not match or have invalid records; the message names the file
            and the record.
    """
    truth = read_ground_truth(ground_truth, [iou_type], class_agnostic=class_agnostic)
    found = read_results(results, truth, [iou_type], class_agnostic=class_agnostic)
    return _evaluate(truth, found, iou_type, class_agnostic, max_detections)[0]


def evaluate_all(
    ground_truth: Source,
    results: Source,
    *,
    iou_types: Sequence[IouType] = (),
    class_agnostic: bool = True,
    max_detections: int = 100,
    folder: StrPath | None = None,
) -> dict[str, Any]:
    """Score boxes and masks; returns the content of an ``evaluation/`` file.

    Args:
        ground_truth: as for :func:`evaluate`.
        results: as for :func:`evaluate`.
        iou_types: what to score; by default boxes, and masks if both sides have them.
        class_agnostic: as for :func:`evaluate`.
        max_detections: as for :func:`evaluate`.
        folder: of the temporary file of the results' masks, which is about as large as the results;
            by default the system's.

    Returns:
        ``{"bbox": {...}, "segm": {...}, "precision": {"bbox": {...}, "segm": {...}},
        "num_images", "num_ground_truth", "num_results"}``. ``precision`` has the curves of
        AP50 and AP75: precision in percent at the recalls 0, 0.01, ... 1.

    Raises:
        DataError: as for :func:`evaluate`.
    """
    wanted = iou_types or BOTH
    truth = read_ground_truth(ground_truth, wanted, class_agnostic=class_agnostic)
    found = read_results(results, truth, wanted, class_agnostic=class_agnostic, folder=folder)
    if not iou_types:
        # Empty results may have masks: score 0 if the ground truth has masks.
        masks = truth.records.has_masks and (found.records.has_masks or not found.records)
        iou_types = ("bbox", "segm") if masks else ("bbox",)
    scores: dict[str, Any] = {}
    curves: dict[str, Curves] = {}
    for iou_type in iou_types:
        scores[iou_type], curves[iou_type] = _evaluate(
            truth, found, iou_type, class_agnostic, max_detections
        )
    rest = {
        "precision": curves,
        "num_images": len(truth.images),
        "num_ground_truth": len(truth.records),
        "num_results": len(found.records),
    }
    return scores | rest


def _evaluate(
    truth: Records, results: Records, iou_type: IouType, class_agnostic: bool, max_detections: int
) -> tuple[Metrics, Curves]:
    if not truth.images:
        raise DataError(f"{truth.name}: no images to evaluate on")
    logger.info("scoring %s", "boxes" if iou_type == "bbox" else "masks")
    limits = sorted({1, 10, 100, max_detections})
    categories = None if class_agnostic else truth.category_ids
    precision, recall = accumulate(truth, results, iou_type, limits, categories)
    best = limits.index(max_detections)
    values = {
        "AP": precision[:, :, :, _ALL, best],
        "AP50": precision[0, :, :, _ALL, best],
        "AP75": precision[5, :, :, _ALL, best],
        "APs": precision[:, :, :, _SMALL, best],
        "APm": precision[:, :, :, _MEDIUM, best],
        "APl": precision[:, :, :, _LARGE, best],
        "AR1": recall[:, :, _ALL, limits.index(1)],
        "AR10": recall[:, :, _ALL, limits.index(10)],
        "AR100": recall[:, :, _ALL, limits.index(100)],
    }
    metrics = {name: _percent(values[name]) for name in METRICS}
    if max_detections > 100:
        metrics[f"AR{max_detections}"] = _percent(recall[:, :, _ALL, best])
    if not class_agnostic:
        shared = Counter(truth.category_names.values())
        for index, (category, name) in enumerate(sorted(truth.category_names.items())):
            if shared[name] > 1:
                name = f"{name} ({category})"
            metrics[f"AP-{name}"] = _percent(precision[:, :, index, _ALL, best])
    return metrics, _curves(precision[:, :, :, _ALL, best])


def _curves(precision: NDArray[np.float64]) -> Curves:
    """Average (10 IoU, 101 recall, categories) precision over the categories with objects."""
    defined = precision[:, :, (precision > -1).all(axis=(0, 1))]
    if not defined.size:
        return {}
    return {name: (100 * defined[place].mean(axis=1)).tolist() for name, place in CURVES.items()}


def _percent(values: NDArray[np.float64]) -> float | None:
    defined = values[values > -1]
    return 100 * float(defined.mean()) if defined.size else None
