"""Class-agnostic ground truth, as COCO json, from the official annotation files."""

from cuvler.ground_truth.convert import FORMATS, Counts, make_ground_truth

__all__ = ["FORMATS", "Counts", "make_ground_truth"]
