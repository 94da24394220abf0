"""The content of the page's sections: numbers, charts and pictures."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cuvler.evaluation.score_files import read_scores
from cuvler.evaluation.table import Table, tables
from cuvler.image_status import ImageStatus
from cuvler.images import open_image
from cuvler.layout import DetectorName
from cuvler.progress import duration
from cuvler.report import charts
from cuvler.report.cards import Panel, make_panel
from cuvler.report.dataset import DatasetFiles
from cuvler.report.examples import best_and_worst
from cuvler.report.formats import change, percent
from cuvler.report.gallery import make_gallery
from cuvler.report.inputs import Inputs, of_dataset
from cuvler.report.stored import Stored, Voter
from cuvler.report.tables import (
    HEADLINE,
    IOU_TYPES,
    class_tables,
    metrics_tables,
    previous_round,
    rule_times,
)
from cuvler.report.training import AUGMENTED, Losses, read_losses


@dataclass(frozen=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


def tiles(
    metrics: dict[str, dict[str, Any]], accounts: dict[tuple[str, str], dict[str, Any]]
) -> list[Tile]:
    """Return the summary: scores on the first dataset and masks of the first method."""
    shown = []
    for dataset, entries in list(metrics.items())[:1]:
        shown += _score_tiles(dataset, entries)
    for (dataset, method), counted in list(accounts.items())[:1]:
        with_masks = counted["statuses"][ImageStatus.OK]
        where = f"in {with_masks:,} of {counted['facts']['images']} images of {dataset}"
        shown.append(Tile(f"Masks by {method}", counted["facts"]["masks"], where))
    return shown


def _score_tiles(dataset: str, entries: dict[str, Any]) -> list[Tile]:
    """Return the highest AP of masks and boxes, and the gain of the last self-training round."""
    tiles = []
    for iou_type, what in (("segm", "Mask AP"), ("bbox", "Box AP")):
        values = {name: entry.get(iou_type, {}).get("AP") for name, entry in entries.items()}
        scores = {name: value for name, value in values.items() if value is not None}
        if not scores:
            continue
        best = max(scores, key=lambda name: scores[name])
        note = f"best of {len(scores)}: {best}"
        tiles.append(Tile(f"{what} on {dataset}", percent(scores[best]), note))
        before = previous_round(best)
        if iou_type == "segm" and before in scores:
            gain = change(scores[best] - scores[before])
            tiles.append(Tile("Mask AP by self-training", gain, f"{best} over {before}"))
    return tiles


def metrics_section(inputs: Inputs, dataset: str, entries: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset's scores as tables, bars and curves.

    Raises:
        DataError: an evaluation file is missing or damaged.
    """
    full = metrics_tables(dataset, entries)
    series = {
        table.title.lower(): [
            table.rows[name]["AP"].value if name in table.rows else None for name in entries
        ]
        for table in full
    }
    return {
        "headline": metrics_tables(dataset, entries, HEADLINE),
        "full": full,
        "chart": charts.bars(
            list(entries), series, alt=f"Bars: AP on {dataset}; the table has the same numbers"
        ),
        "curves": _curves(inputs, dataset, entries),
    }


def fine_tuning_section(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of fine-tuned detectors: means over classes, and AP per class."""
    return {
        "headline": metrics_tables(None, entries, HEADLINE),
        "classes": class_tables(entries),
    }


def overview(metrics: dict[str, dict[str, Any]]) -> list[Table]:
    """Return the tables of all detectors on all datasets; empty for a single dataset."""
    return tables(metrics) if len(metrics) > 1 else []


def _curves(inputs: Inputs, dataset: str, entries: dict[str, Any]) -> dict[str, Markup]:
    """Draw precision over recall of entries with an evaluation file, masks before boxes."""
    files = of_dataset(inputs.evaluations, dataset)
    found = {
        name: read_scores(path)["precision"] for name, path in files.items() if name in entries
    }
    drawn = {}
    for iou_type, title in IOU_TYPES.items():
        curves = {name: of[iou_type] for name, of in found.items() if of.get(iou_type)}
        if not curves:
            continue
        ends = ", ".join(f"{name} {percent(entries[name][iou_type]['AP50'])}" for name in curves)
        alt = f"Precision over recall of {title.lower()} on {dataset}; areas at IoU 0.5: {ends}"
        drawn[title] = charts.precision_recall(curves, alt=alt)
    return drawn


def gallery_section(
    inputs: Inputs, dataset: str, files: DatasetFiles, vectors: Mapping[Voter, Stored]
) -> dict[str, Any] | None:
    """Return a dataset's gallery and the last detector's best and worst images, if it has images.

    Raises:
        DataError: a file is missing or damaged, or does not match the images.
    """
    if not files.images:
        return None
    cards = make_gallery(inputs, dataset, files, vectors)
    return {"cards": cards, "extremes": best_and_worst(inputs, dataset, files)}


def training_section(detector: str, folder: Path) -> dict[str, Any]:
    """Return a detector's loss curves and, if its folder has them, augmented samples.

    Raises:
        DataError: the losses are missing.
    """
    losses = read_losses(folder)
    total = losses.curves["total"]
    alt = (
        f"Loss curves of {detector}: the total goes from {total[0]:.3g} to {total[-1]:.3g} "
        f"in {losses.iterations[-1]} iterations"
    )
    samples = folder / AUGMENTED
    return {
        "losses": losses,
        "chart": charts.loss_curves(losses, alt=alt),
        "scores": _score_chart(detector, losses) if losses.scores else None,
        "samples": _samples(detector, samples) if _pastes(detector) and samples.exists() else None,
    }


def _pastes(detector: str) -> bool:
    """Check whether a detector was trained with copy-paste; fine-tuned ones were not."""
    try:
        return DetectorName.parse(detector).percent is None
    except ValueError:
        return True


def _score_chart(detector: str, losses: Losses) -> Markup:
    ends = ", ".join(f"{name} {percent(values[-1])}" for name, (_, values) in losses.scores.items())
    alt = f"AP of {detector} while it trains; after the last iteration: {ends}"
    return charts.score_curves(losses, alt=alt)


def _samples(detector: str, path: Path) -> Panel:
    picture = open_image(path)
    picture.thumbnail((1280, 1280))
    return make_panel(
        "augmented samples",
        "copy-paste",
        f"training samples of {detector} after copy-paste",
        picture,
    )


def run_section(inputs: Inputs, devices: Collection[str]) -> dict[str, Any]:
    """Return run time, memory, CPU time and GPU time by rule.

    Args:
        inputs: the files of the report.
        devices: those that eigenvectors were extracted on.

    Raises:
        DataError: a file is not a benchmark.
    """
    if inputs.benchmarks is None:
        return {"times": [], "facts": {}}
    times = rule_times(inputs.benchmarks, _held_gpus(inputs, devices))
    facts = {
        "jobs": f"{sum(rule.jobs for rule in times):,}",
        "total time of jobs": duration(sum(rule.total for rule in times)),
        "CPU-hours": f"{sum(rule.cpu for rule in times) / 3600:.2f}",
        "GPU-hours": f"{sum(rule.gpu for rule in times) / 3600:.2f}",
    }
    return {"times": times, "facts": facts}


def _held_gpus(inputs: Inputs, devices: Collection[str]) -> dict[str, int]:
    """Return the GPUs held by each rule, without eigenvectors if extracted on the CPU."""
    held = dict(inputs.gpus)
    if not all(device.startswith("cuda") for device in devices):
        held.pop("eigenvectors", None)
    return held
