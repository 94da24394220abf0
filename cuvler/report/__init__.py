"""The HTML report: scores, masks, galleries, losses and run times of a run."""

from cuvler.report.inputs import Inputs
from cuvler.report.page import make_report

__all__ = ["Inputs", "make_report"]
