"""Precision over recall: the curves whose areas the metrics sum up."""

import numpy as np
from numpy.typing import NDArray

from cuvler.evaluation.metrics import accumulate
from cuvler.evaluation.records import (
    IouType,
    Source,
    prepare_ground_truth,
    prepare_results,
    read_ground_truth,
    read_results,
)

RECALLS = np.linspace(0, 1, 101)
_IOUS = {50: 0, 75: 5}


def precision_recall(
    ground_truth: Source, results: Source, *, iou_type: IouType = "bbox"
) -> dict[int, NDArray[np.float64]]:
    """Give COCO's interpolated precision of 100 detections an image, every category as one.

    Args:
        ground_truth: as for :func:`cuvler.evaluation.evaluate`; so are results and iou_type.

    Returns:
        IoU in percent (50, 75) -> precision in percent at the recalls 0, 0.01, ... 1, of shape
        (101,): AP50 and AP75 are their means. Nothing without ground truth.

    Raises:
        DataError: as for :func:`cuvler.evaluation.evaluate`.
    """
    truth = read_ground_truth(ground_truth)
    found = read_results(results, truth)
    precision, _ = accumulate(
        sorted(truth.images),
        [1],
        prepare_ground_truth(truth, iou_type, class_agnostic=True),
        prepare_results(found, truth, iou_type, class_agnostic=True),
        iou_type,
        [100],
    )
    curves = {iou: 100 * precision[index, :, 0, 0, 0] for iou, index in _IOUS.items()}
    return {iou: curve for iou, curve in curves.items() if (curve >= 0).all()}
