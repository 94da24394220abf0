"""A detector's best and worst images."""

from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from cuvler.coco import Annotation
from cuvler.evaluation.compact import CompactRecords
from cuvler.images import Size
from cuvler.report.cards import Card, make_card
from cuvler.report.dataset import DatasetFiles
from cuvler.report.inputs import Inputs
from cuvler.report.records import best


def best_and_worst(
    inputs: Inputs, dataset: str, files: DatasetFiles
) -> tuple[str, list[Card], list[Card]] | None:
    """Draw the last detector's best and worst images with the ground truth.

    Images are ranked by :func:`mean_best_iou` of the detections drawn.

    Returns:
        The detector's name, the best images (best first) and the worst (worst first); ``None``
        without predictions, ground truth or images.

    Raises:
        DataError: a mask does not match its image.
    """
    ranked = files.ranked
    if ranked is None or files.truth is None:
        return None
    ids = np.unique(ranked.objects.image_ids)
    sides = ranked.objects, ranked.detections
    measures = np.array(
        [mean_best_iou(*(_drawn(one, i, ranked.images[i].size) for one in sides)) for i in ids]
    )
    ranking = ids[np.lexsort((ids, -measures))].tolist()
    count = min(max(1, inputs.images // 2), len(ranking) // 2)
    if not count:
        return None
    measure = dict(zip(ids.tolist(), measures.tolist(), strict=True))

    layers = (files.detections[-1], ranked.detections), (files.truth, ranked.objects)

    def card(image_id: int) -> Card:
        image = ranked.images[image_id]
        drawn = [
            replace(layer, records={image_id: _drawn(records, image_id, image.size)})
            for layer, records in layers
        ]
        note = f"mean IoU {measure[image_id]:.2f}"
        image_root = inputs.image_roots[dataset]
        return make_card(image_root, image, drawn, {}, note, side=inputs.side)

    best, worst = ranking[:count], ranking[-count:][::-1]
    return ranked.detector, [card(i) for i in best], [card(i) for i in worst]


def _drawn(records: CompactRecords, image_id: int, size: Size | None) -> list[Annotation]:
    """Return the records of an image to draw, with the image's size if it is known."""
    found = best(records.annotations(records.rows_of([image_id])))
    return [record._replace(size=size or record.size) for record in found]


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
