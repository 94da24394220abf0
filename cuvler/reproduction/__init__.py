"""Score published detectors and pseudo-masks and compare with the published scores."""

from cuvler.reproduction.entries import Entry, entries, missing_datasets
from cuvler.reproduction.outcome import fetch, next_attempt, run_step, skip_reason, unknown_files
from cuvler.reproduction.table import Figure, figures, to_markdown

__all__ = [
    "Entry",
    "Figure",
    "entries",
    "fetch",
    "figures",
    "missing_datasets",
    "next_attempt",
    "run_step",
    "skip_reason",
    "to_markdown",
    "unknown_files",
]
