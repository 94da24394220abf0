"""Compare published and measured scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuvler.evaluation.compact import IouType
from cuvler.evaluation.published_scores import published
from cuvler.markdown import escape, grid
from cuvler.reproduction.entries import Entry

TOLERANCE = 0.1  # percentage points; published scores are rounded to one decimal
_ROUNDING = 1e-9
_UNPUBLISHED = ("AP", "AP50", "AR100")
_SCORED: dict[IouType, str] = {"bbox": "boxes", "segm": "masks"}
_HEADING = (
    *("entry", "dataset", "scored", "metric"),
    *("published", "measured", "difference", "verdict"),
)


@dataclass(frozen=True)
class Figure:
    """A metric of an entry on a dataset, in percent.

    Attributes:
        entry: the entry.
        dataset: a name of the config's datasets.
        iou_type: ``bbox`` for boxes, ``segm`` for masks.
        metric: ``AP``, ``AP50``...
        measured: the measured value; None if the dataset has no ground truth for it.
        published: the published value; None if unknown.
        source: publication of the value.
    """

    entry: Entry
    dataset: str
    iou_type: IouType
    metric: str
    measured: float | None
    published: float | None = None
    source: str = ""

    @property
    def difference(self) -> float | None:
        """Measured minus published; None if either is unknown."""
        if self.measured is None or self.published is None:
            return None
        return self.measured - self.published

    @property
    def verdict(self) -> str:
        """``within 0.1``, ``differs``, or empty if there is nothing to compare."""
        if self.difference is None:
            return ""
        within = abs(self.difference) <= TOLERANCE + _ROUNDING
        return f"within {TOLERANCE}" if within else "differs"


def figures(entry: Entry, dataset: str, scores: Mapping[str, Any]) -> list[Figure]:
    """Pair an entry's scores on a dataset with the published scores.

    Args:
        entry: the entry.
        dataset: a name of the config's datasets.
        scores: the result of :func:`cuvler.evaluation.evaluate_all`.

    Returns:
        One figure per published metric; AP, AP50 and AR100 if nothing is published.
    """
    found = []
    for iou_type in entry.iou_types:
        if iou_type not in scores:
            continue
        measured = scores[iou_type]
        known = [
            Figure(entry, dataset, iou_type, metric, measured.get(metric), value, row.source)
            for row in published(iou_type)
            if row.name == entry.published
            for metric, value in row.scores.get(dataset, {}).items()
        ]
        alone = [Figure(entry, dataset, iou_type, m, measured.get(m)) for m in _UNPUBLISHED]
        found += known or alone
    return found


def to_markdown(
    found: Sequence[Figure],
    *,
    skipped: Sequence[tuple[Entry, str, str]],
    missing: Mapping[str, str],
    titles: Mapping[str, str],
) -> str:
    """Format figures, skipped entries and missing datasets as a page of Markdown.

    Args:
        found: figures, in the order of the rows.
        skipped: (entry, dataset, reason).
        missing: dataset -> reason.
        titles: dataset -> its name in the table; by default the dataset's key.
    """
    compared = [figure for figure in found if figure.difference is not None]
    within = sum(figure.verdict != "differs" for figure in compared)
    parts = [
        "# Reproduction",
        f"In percent. {within} of {len(compared)} figures with a published value are within "
        f"{TOLERANCE} of it; {len(found) - len(compared)} have no published value.",
    ]
    notes: dict[str, str] = {}
    if found:
        rows = [_cells(figure, titles, notes) for figure in found]
        parts.append(grid(_HEADING, rows))
    if skipped:
        parts += ["## Skipped", grid(("entry", "datasets", "reason"), _by_reason(skipped, titles))]
    if missing:
        names = [(escape(titles.get(name, name)), escape(why)) for name, why in missing.items()]
        parts += ["## Missing datasets", grid(("dataset", "reason"), names)]
    if notes:
        parts.append("\n".join(f"[^{mark}]: {source}" for source, mark in notes.items()))
    return "\n\n".join(parts) + "\n"


def _by_reason(
    skipped: Sequence[tuple[Entry, str, str]], titles: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Merge the datasets of an entry that were skipped for the same reason into one row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for entry, name, reason in skipped:
        rows.setdefault((entry.title, reason), []).append(titles.get(name, name))
    return [
        (escape(title), escape(", ".join(names)), escape(reason))
        for (title, reason), names in rows.items()
    ]


def _cells(figure: Figure, titles: Mapping[str, str], notes: dict[str, str]) -> list[str]:
    published = ""
    if figure.published is not None:
        mark = notes.setdefault(figure.source, str(len(notes) + 1))
        published = f"{figure.published:.1f} [^{mark}]"
    difference = "" if figure.difference is None else f"{figure.difference:+.2f}"
    return [
        escape(figure.entry.title),
        escape(titles.get(figure.dataset, figure.dataset)),
        _SCORED[figure.iou_type],
        figure.metric,
        published,
        "" if figure.measured is None else f"{figure.measured:.2f}",
        difference,
        figure.verdict,
    ]
