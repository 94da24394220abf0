"""Predictions: run a detector over a dataset and write COCO results."""

from cuvler.predictions.coco_results import as_coco_annotations, coco_records
from cuvler.predictions.dataset import Options, predict_dataset, prediction_devices
from cuvler.predictions.parts import (
    Summary,
    join_parts,
    predict_images,
    read_images,
    split_images,
)

__all__ = [
    "Options",
    "Summary",
    "as_coco_annotations",
    "coco_records",
    "join_parts",
    "predict_dataset",
    "predict_images",
    "prediction_devices",
    "read_images",
    "split_images",
]
