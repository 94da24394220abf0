"""Scores published in the papers, for comparison."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cuvler.evaluation.compact import IouType

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """A detector's published scores.

    Attributes:
        name: name of the detector.
        source: publication of the scores.
        scores: dataset (a key of ``config/datasets.yaml``) -> metric -> percent.
    """

    name: str
    source: str
    scores: dict[str, dict[str, float]]


@cache
def published(iou_type: IouType) -> tuple[Published, ...]:
    """Return the known published scores of boxes (``bbox``) or masks (``segm``)."""
    import yaml

    entries = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return tuple(
        Published(entry["name"], entry["source"], entry[iou_type])
        for entry in entries
        if iou_type in entry
    )
