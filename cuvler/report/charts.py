"""Charts as SVG, with the colours of the page, for light and dark mode."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from cuvler.report.formats import percent
from cuvler.report.training import Losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Placeholder colours for matplotlib, replaced by the page's CSS variables.
_INK, _FAINT = "#010203", "#040506"
_SERIES = tuple(f"#0a000{number}" for number in range(1, 9))
_VARIABLES = {_INK: "currentColor", _FAINT: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, start=1)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names can contain dollar signs
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "path.simplify_threshold": 0.5,
}


def histogram(
    values: NDArray[Any],
    label: str,
    unit: str,
    *,
    alt: str,
    limits: tuple[float, float] | None = None,
    marked: tuple[str, NDArray[np.bool_]] | None = None,
) -> Markup:
    """Draw a histogram.

    Args:
        values: (n,), not empty. Integers in a small range get one bar each.
        label: label of the horizontal axis.
        unit: what is counted.
        alt: description of the chart for screen readers.
        limits: range of the horizontal axis; by default the range of the values.
        marked: name and (n,) mask of a subset that is drawn in another colour.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = limits or (float(values.min()), float(values.max()))
    if limits is None and high - low <= 30:
        edges = np.arange(np.floor(low), np.floor(high) + 2) - 0.5
    else:
        edges = np.linspace(low, high, 26)
    counts, _ = np.histogram(values, edges)

    def draw(axes: "Axes") -> None:
        widths = np.diff(edges) * 0.88
        centres = (edges[:-1] + edges[1:]) / 2
        axes.bar(centres, counts, widths, color=_SERIES[0], linewidth=0)
        if marked:
            part, _ = np.histogram(values[marked[1]], edges)
            axes.bar(centres, part, widths, color=_SERIES[1], linewidth=0, label=marked[0])
            axes.legend(loc="upper right", labelcolor=_INK, handlelength=1, borderaxespad=0)
        axes.set_xlabel(label)
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=limits is None))
        axes.xaxis.grid(False)

    return _svg(draw, alt, width=3.4, height=2.0)


def loss_curves(losses: Losses, *, alt: str) -> Markup:
    """Draw the total loss and its parts over iterations."""

    def draw(axes: "Axes") -> None:
        for (name, values), colour in zip(losses.curves.items(), _SERIES, strict=False):
            width = 1.8 if name == "total" else 1.1
            marker = "o" if len(values) == 1 else None
            axes.plot(losses.iterations, values, color=colour, lw=width, label=name, marker=marker)
        axes.set_xlabel("iteration")
        axes.set_ylim(bottom=0)
        axes.xaxis.grid(False)
        _legend_above(axes, len(losses.curves))

    return _svg(draw, alt, width=4.8, height=3.0)


def score_curves(losses: Losses, *, alt: str) -> Markup:
    """Draw box AP and mask AP over iterations."""

    def draw(axes: "Axes") -> None:
        for (name, (iterations, values)), colour in zip(
            losses.scores.items(), _SERIES, strict=False
        ):
            axes.plot(iterations, values, color=colour, lw=1.5, label=name, marker="o", ms=3)
        axes.set(xlabel="iteration", ylabel="AP")
        axes.set_ylim(bottom=0)
        axes.xaxis.grid(False)
        _legend_above(axes, len(losses.scores))

    return _svg(draw, alt, width=4.8, height=2.2)


def precision_recall(curves: Mapping[str, Mapping[str, Sequence[float]]], *, alt: str) -> Markup:
    """Draw precision-recall curves, one colour per entry and one line style per IoU threshold.

    Args:
        curves: entry -> AP50, AP75 -> precision in percent at 101 recalls.
        alt: description of the chart for screen readers.
    """
    recalls = np.linspace(0, 100, 101)

    def draw(axes: "Axes") -> None:
        for number, (entry, of_ious) in enumerate(curves.items()):
            colour = _SERIES[number % len(_SERIES)]
            axes.plot(recalls, of_ious["AP50"], color=colour, lw=1.5, label=entry)
            axes.plot(recalls, of_ious["AP75"], color=colour, lw=1.5, ls=(0, (3, 1.5)))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 100), ylim=(0, 101))
        _legend_above(axes, len(curves))

    return _svg(draw, alt, width=4.4, height=3.2)


def bars(rows: Sequence[str], series: Mapping[str, Sequence[float | None]], *, alt: str) -> Markup:
    """Draw horizontal bars of percentages, grouped by row, first row on top.

    Args:
        rows: names of the rows.
        series: name -> one value per row.
        alt: description of the chart for screen readers.
    """
    thickness = 0.8 / len(series)
    positions = np.arange(len(rows))

    def draw(axes: "Axes") -> None:
        for number, (name, values) in enumerate(series.items()):
            known = [0.0 if value is None else value for value in values]
            offset = (number - (len(series) - 1) / 2) * thickness
            drawn = axes.barh(
                positions + offset, known, thickness * 0.86, color=_SERIES[number], label=name
            )
            axes.bar_label(
                drawn, [percent(value) for value in values], padding=3, color=_INK, fontsize=9
            )
        axes.set_yticks(positions, list(rows))
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.yaxis.grid(False)
        if len(series) > 1:
            _legend_above(axes, len(series))

    return _svg(draw, alt, width=4.4, height=0.7 + 0.26 * len(rows) * len(series))


def _legend_above(axes: "Axes", entries: int) -> None:
    columns = entries if entries <= 3 else 2
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, labelcolor=_INK, handlelength=1.2
    )


def _svg(draw: "Callable[[Axes], None]", alt: str, *, width: float, height: float) -> Markup:
    import matplotlib
    from matplotlib.figure import Figure

    # The salt determines the ids in the SVG: the output is reproducible, and ids of charts on one
    # page do not collide.
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": alt}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    # A function, because a replacement's backslashes are not taken as they are.
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        lambda match: f"<svg {match[1]} {_accessible(alt)}>",
        svg,
        count=1,
    )
    return Markup(svg)  # noqa: S704 (generated here; alt and labels are escaped)


def _accessible(alt: str) -> str:
    return f'role="img" aria-label="{escape(alt)}" class="chart"'
