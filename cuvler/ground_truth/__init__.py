"""Converting official annotation files to class-agnostic ground truth as COCO json."""

from cuvler.ground_truth.convert import FORMATS, Counts, make_ground_truth

__all__ = ["FORMATS", "Counts", "make_ground_truth"]
