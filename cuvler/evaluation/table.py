"""Tables of all detectors and datasets, in the layout of CutLER's Table 1.

Each row is a detector, each column a dataset, each cell AP50 and AR100.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuvler.evaluation.compact import IouType
from cuvler.evaluation.published_scores import published
from cuvler.markdown import escape, grid

METRICS = ("AP50", "AR100")
_AVERAGE = "Average"
_TITLES: dict[IouType, str] = {"bbox": "Boxes", "segm": "Masks"}


@dataclass(frozen=True)
class Row:
    """A detector's scores.

    Attributes:
        name: detector, or method of the scored pseudo-masks.
        source: publication of the scores; None for measured scores.
        scores: dataset -> metric -> percent; may lack datasets and metrics.
    """

    name: str
    source: str | None
    scores: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Table:
    """Scores of boxes or masks: one row per detector, one column per dataset, in this order."""

    iou_type: IouType
    datasets: tuple[str, ...]
    rows: tuple[Row, ...]


def tables(metrics: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Arrange the scores of several datasets in tables, boxes before masks.

    Args:
        metrics: dataset -> entry (a detector or method) -> the result of
            :func:`cuvler.evaluation.evaluate_all`.

    Returns:
        A table for boxes and one for masks, if any entry has them. Published rows come first,
        limited to the given datasets, then the entries in order of appearance.
    """
    found = []
    for iou_type in _TITLES:
        ours: dict[str, dict[str, Mapping[str, float | None]]] = {}
        for dataset, entries in metrics.items():
            for name, entry in entries.items():
                if iou_type in entry:
                    ours.setdefault(name, {})[dataset] = entry[iou_type]
        datasets = tuple(d for d in metrics if any(d in scores for scores in ours.values()))
        rows = [*_published(iou_type, datasets), *(Row(n, None, s) for n, s in ours.items())]
        if datasets:
            found.append(Table(iou_type, datasets, tuple(rows)))
    return found


def _published(iou_type: IouType, datasets: Sequence[str]) -> list[Row]:
    rows = []
    for entry in published(iou_type):
        scores = {name: entry.scores[name] for name in datasets if name in entry.scores}
        if scores:
            rows.append(Row(entry.name, entry.source, scores))
    return rows


def average(row: Row, datasets: Sequence[str], metric: str) -> float | None:
    """Return a row's mean over all datasets; None if one has no score or there is only one."""
    values = [row.scores.get(dataset, {}).get(metric) for dataset in datasets]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) > 1 else None


def to_csv(found: Sequence[Table], titles: Mapping[str, str]) -> str:
    """Format tables as CSV: one row per detector, unrounded, empty cells for missing scores.

    Args:
        found: the result of :func:`tables`.
        titles: dataset -> its name in the heading; by default the dataset's key.
    """
    datasets = list(dict.fromkeys(name for table in found for name in table.datasets))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [f"{titles.get(name, name)} {metric}" for name in datasets for metric in METRICS]
    writer.writerow(["scored", "detector", "published in", *columns])
    for table in found:
        for row in table.rows:
            scores = [
                row.scores.get(name, {}).get(metric) for name in datasets for metric in METRICS
            ]
            writer.writerow([_TITLES[table.iou_type], row.name, row.source or "", *scores])
    return stream.getvalue()


def to_markdown(found: Sequence[Table], titles: Mapping[str, str]) -> str:
    """Format tables as Markdown: AP50 | AR100 in each cell, published rows with a footnote.

    Args:
        found: the result of :func:`tables`.
        titles: dataset -> its name in the heading; by default the dataset's key.
    """
    parts = []
    notes: dict[str, str] = {}
    for table in found:
        names = [escape(titles.get(name, name)) for name in table.datasets]
        averaged = len(names) > 1
        heading = [_TITLES[table.iou_type], *([_AVERAGE] if averaged else []), *names]
        rows = []
        for row in table.rows:
            means = {m: average(row, table.datasets, m) for m in METRICS}
            cells = [_cell(row.scores.get(name, {})) for name in table.datasets]
            label = escape(row.name)
            if row.source:
                mark = notes.setdefault(row.source, str(len(notes) + 1))
                label += f" (published) [^{mark}]"
            rows.append([label, *([_cell(means)] if averaged else []), *cells])
        parts.append(grid(heading, rows))
    parts.insert(0, "AP50 \\| AR100 in percent, class-agnostic.")
    parts += ["\n".join(f"[^{mark}]: {source}" for source, mark in notes.items())] if notes else []
    return "\n\n".join(parts) + "\n"


def _cell(scores: Mapping[str, float | None]) -> str:
    values = [scores.get(metric) for metric in METRICS]
    if all(value is None for value in values):
        return ""
    return " \\| ".join("–" if value is None else f"{value:.1f}" for value in values)  # noqa: RUF001
