"""Evaluation: COCO's average precision and recall of masks and boxes."""

from cuvler.evaluation.metrics import METRICS, evaluate, evaluate_all

__all__ = ["METRICS", "evaluate", "evaluate_all"]
