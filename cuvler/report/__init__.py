"""The report: one page that shows what a run found, how well, and how long it took."""

from cuvler.report.inputs import Inputs
from cuvler.report.page import make_report

__all__ = ["Inputs", "make_report"]
