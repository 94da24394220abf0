"""Evaluation: COCO's average precision and recall of masks and boxes."""

from cuvler.evaluation.metrics import METRICS, evaluate, evaluate_all
from cuvler.evaluation.published_scores import published

__all__ = ["METRICS", "evaluate", "evaluate_all", "published"]
