"""A detector's best and worst images."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from cuvler.coco import Annotation
from cuvler.coco.values import Refused
from cuvler.errors import DataError
from cuvler.report.gallery import (
    Card,
    Layer,
    best_records,
    coco_images,
    make_card,
    truth_layer,
)
from cuvler.report.inputs import Inputs, of_dataset


def best_and_worst(inputs: Inputs, dataset: str) -> tuple[str, list[Card], list[Card]] | None:
    """Draw the last detector's best and worst images with the ground truth.

    Images are ranked by :func:`mean_best_iou` of the detections drawn.

    Returns:
        The detector's name, the best images (best first) and the worst (worst first); ``None``
        without predictions, ground truth or images.

    Raises:
        DataError: a file is missing or damaged, or does not match the images.
    """
    predictions = of_dataset(inputs.predictions, dataset)
    if dataset not in inputs.ground_truth or not predictions:
        return None
    detector, path = list(predictions.items())[-1]
    truth_path = inputs.ground_truth[dataset]
    images = coco_images(truth_path)
    sizes = {number: image.size for number, image in images.items()}
    truth = truth_layer(inputs, dataset, sizes)
    records = best_records(path, sizes, score_threshold=inputs.score_threshold)
    found = Layer(detector, "detections", path, records)
    try:
        measures = {
            image_id: mean_best_iou(objects, records.get(image_id, []))
            for image_id, objects in truth.records.items()
        }
    except Refused as reason:
        raise DataError(f"{truth_path}: {reason}") from None
    ranking = sorted(measures, key=lambda image_id: (-measures[image_id], image_id))
    count = min(max(1, inputs.images // 2), len(ranking) // 2)
    if not count:
        return None

    def card(image_id: int) -> Card:
        note = f"mean IoU {measures[image_id]:.2f}"
        image_root = inputs.image_roots[dataset]
        return make_card(image_root, images[image_id], [found, truth], {}, note, side=inputs.side)

    best, worst = ranking[:count], ranking[-count:][::-1]
    return detector, [card(i) for i in best], [card(i) for i in worst]


def mean_best_iou(objects: list[Annotation], detections: list[Annotation]) -> float:
    """Return the mean over objects of the highest IoU with a detection.

    Masks are compared, or boxes if not all objects have masks.
    """
    if not detections:
        return 0.0
    pairs: tuple[list[Any], list[Any]]
    if all(record.segmentation is not None for record in objects):
        pairs = [one.rle() for one in detections], [one.rle() for one in objects]
    else:
        pairs = [list(one.box()) for one in detections], [list(one.box()) for one in objects]
    overlaps = coco_mask.iou(*pairs, [0] * len(objects))
    return float(np.asarray(overlaps).max(axis=0).mean())
