"""Putting the report together."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from cuvler import __version__
from cuvler.report import charts
from cuvler.report.accounting import Accounting, account
from cuvler.report.examples import best_and_worst
from cuvler.report.gallery import make_gallery
from cuvler.report.inputs import Inputs
from cuvler.report.tables import (
    HEADLINE,
    metrics_tables,
    read_metrics,
    round_before,
    rule_times,
    versions,
)
from cuvler.report.training import Losses, read_losses


@dataclass(frozen=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


def make_report(inputs: Inputs, *, title: str = "CuVLER report") -> str:
    """Make the page: HTML that needs no other file and no network.

    The same inputs and packages give the same page, byte for byte.

    Raises:
        DataError: an input is missing, damaged, or does not belong to the others.
    """
    metrics = {dataset: read_metrics(path) for dataset, path in inputs.metrics.items()}
    accounts = {key: account(path) for key, path in inputs.annotations.items()}
    sections: dict[str, Any] = {
        "tiles": _tiles(metrics, accounts),
        "metrics": {dataset: _metrics_section(dataset, rows) for dataset, rows in metrics.items()},
        "galleries": _galleries(inputs),
        "accounts": {
            f"{dataset} · {method}": _account_section(f"{method} on {dataset}", counted)
            for (dataset, method), counted in accounts.items()
        },
        "training": {
            detector: _training_section(detector, read_losses(folder))
            for detector, folder in inputs.detectors.items()
        },
        "times": rule_times(inputs.benchmarks) if inputs.benchmarks else [],
        "config": inputs.config,
        "versions": versions(),
    }
    return _render(title=title, version=__version__, min_score=inputs.min_score, **sections)


def _render(**context: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cuvler.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "change": change, "duration": duration}
    folder = resources.files("cuvler.report")
    for name in ("page.css", "page.js"):
        text = folder.joinpath(name).read_text(encoding="utf-8")
        context[name.replace("page.", "")] = Markup(text)  # noqa: S704 (a file of this package)
    return environment.get_template("page.html.j2").render(**context)


def _tiles(
    metrics: dict[str, dict[str, Any]], accounts: dict[tuple[str, str], Accounting]
) -> list[Tile]:
    tiles = []
    for dataset, entries in metrics.items():
        tiles += _score_tiles(dataset, entries)
    for (dataset, method), counted in list(accounts.items())[:1]:
        where = f"in {counted.statuses['ok']:,} of {counted.num_images:,} images of {dataset}"
        tiles.append(Tile(f"Masks by {method}", f"{counted.num_masks:,}", where))
    return tiles


def _score_tiles(dataset: str, entries: dict[str, Any]) -> list[Tile]:
    """Name the best entry by AP, and what its round of self-training brought."""
    tiles = []
    for iou_type, what in (("segm", "Mask AP"), ("bbox", "Box AP")):
        values = {name: entry.get(iou_type, {}).get("AP") for name, entry in entries.items()}
        scores = {name: value for name, value in values.items() if value is not None}
        if not scores:
            continue
        best = max(scores, key=lambda name: scores[name])
        note = f"best of {len(scores)}: {best}"
        tiles.append(Tile(f"{what} on {dataset}", percent(scores[best]), note))
        before = round_before(best)
        if iou_type == "segm" and before in scores:
            gain = change(scores[best] - scores[before])
            tiles.append(Tile("Mask AP by self-training", gain, f"{best} over {before}"))
    return tiles


def _metrics_section(dataset: str, entries: dict[str, Any]) -> dict[str, Any]:
    tables = metrics_tables(entries)
    series = {
        table.title.lower(): [
            table.rows[name]["AP"].value if name in table.rows else None for name in entries
        ]
        for table in tables
    }
    return {
        "headline": metrics_tables(entries, HEADLINE),
        "full": tables,
        "chart": charts.bars(
            list(entries), series, alt=f"Bars: AP on {dataset}; the table has the same numbers"
        ),
    }


def _galleries(inputs: Inputs) -> dict[str, Any]:
    galleries = {}
    for dataset in inputs.roots:
        cards = make_gallery(inputs, dataset)
        if cards:
            galleries[dataset] = {"cards": cards, "extremes": best_and_worst(inputs, dataset)}
    return galleries


def _account_section(what: str, counted: Accounting) -> dict[str, Any]:
    shares = (0.0, 1.0)
    columns = [
        ("Masks per image", "masks", "images", counted.masks_per_image, None),
        ("Mask size", "\N{SQUARE ROOT}(mask area / image area)", "masks", counted.sizes, shares),
        ("Score", "score", "masks", counted.scores, shares),
        ("Cluster size", "proposals", "masks", counted.cluster_sizes, None),
    ]
    drawn = {}
    for title, label, unit, values, limits in columns:
        if values.size:
            alt = f"{title}, {what}: histogram of {values.size:,} {unit}, mean {values.mean():.3g}"
            drawn[title] = charts.histogram(values, label, unit, alt=alt, limits=limits)
    facts = {"images": f"{counted.num_images:,}", "masks": f"{counted.num_masks:,}"}
    if counted.masks_per_image.size:
        facts["masks an image"] = f"{counted.masks_per_image.mean():.2f}"
    if counted.crf_success.size:
        facts["refined by the CRF"] = f"{100 * counted.crf_success.mean():.1f} %"
    settings = json.dumps(counted.info, indent=2, ensure_ascii=False) if counted.info else ""
    return {"counted": counted, "charts": drawn, "facts": facts, "settings": settings}


def _training_section(detector: str, losses: Losses) -> dict[str, Any]:
    total = losses.curves["total"]
    alt = (
        f"Loss curves of {detector}: the total goes from {total[0]:.3g} to {total[-1]:.3g} "
        f"in {losses.iterations[-1]} iterations"
    )
    return {"losses": losses, "chart": charts.loss_curves(losses, alt=alt)}


def percent(value: float | None) -> str:
    """Write a score in percent with one decimal, an undefined one as a dash."""
    return charts.NO_VALUE if value is None else f"{value:.1f}"


def change(value: float) -> str:
    """Write a difference of scores with its sign."""
    # Rounded first, for there is no minus zero; the minus is the one as wide as the plus.
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Write a time in the two units that matter: 3.4 s, 2 min 5 s, 1 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
