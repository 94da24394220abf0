"""The tables of the report: scores with changes between rounds, run times, versions."""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cuvler.errors import DataError
from cuvler.evaluation import METRICS, published
from cuvler.evaluation.compact import IouType
from cuvler.evaluation.published_scores import Published
from cuvler.layout import DetectorName

HEADLINE = ("AP", "AP50", "AP75", "AR100")
IOU_TYPES: dict[IouType, str] = {"segm": "Masks", "bbox": "Boxes"}
_PACKAGES = (
    "cuvler",
    "torch",
    "timm",
    "detectron2",
    "numpy",
    "zarr",
    "pydensecrf2",
    "pycocotools",
    "hotcoco",
    "snakemake",
)


@dataclass(frozen=True)
class Cell:
    """A score in percent, its change from the previous round, and whether it is the best."""

    value: float | None
    change: float | None
    best: bool


@dataclass(frozen=True)
class MetricsTable:
    """The scores of masks or boxes on a dataset.

    Attributes:
        title: Masks or Boxes.
        columns: metrics, or entries if the rows are classes.
        rows: entry or class -> column -> cell.
        published: scores from the papers, like ``rows``; never marked as best.
        sources: published entry -> paper and table.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]
    published: dict[str, dict[str, Cell]]
    sources: dict[str, str]


def metrics_tables(
    dataset: str | None, entries: Mapping[str, Any], columns: tuple[str, ...] = METRICS
) -> list[MetricsTable]:
    """Return the tables of a dataset's scores, masks before boxes, omitting empty ones.

    Args:
        dataset: the dataset with published scores to include; ``None`` for no published scores.
        entries: entry -> output of ``cuvler evaluation``.
        columns: metrics.
    """
    tables = []
    for iou_type, title in IOU_TYPES.items():
        scores = {name: entry[iou_type] for name, entry in entries.items() if iou_type in entry}
        if scores:
            rows = {
                name: {column: _cell(scores, name, column) for column in columns} for name in scores
            }
            printed = [(p, p.scores[dataset]) for p in published(iou_type) if dataset in p.scores]
            tables.append(
                MetricsTable(
                    title,
                    columns,
                    rows,
                    published={_label(p): _published_cells(of, columns) for p, of in printed},
                    sources={_label(p): p.source for p, _ in printed},
                )
            )
    return tables


def class_tables(entries: Mapping[str, Any]) -> list[MetricsTable]:
    """Return tables of AP with one row per class and one column per entry, masks before boxes."""
    tables = []
    for iou_type, title in IOU_TYPES.items():
        scores = {name: entry[iou_type] for name, entry in entries.items() if iou_type in entry}
        named = dict.fromkeys(key for of in scores.values() for key in of if key.startswith("AP-"))
        rows = {
            key.removeprefix("AP-"): {
                name: Cell(of.get(key), None, best=False) for name, of in scores.items()
            }
            for key in named
        }
        if rows:
            tables.append(MetricsTable(title, tuple(scores), rows, published={}, sources={}))
    return tables


def _label(entry: Published) -> str:
    """Return a name that is unique if several papers report the same detector."""
    return f"{entry.name}, {entry.source.split(',')[0]}"


def _published_cells(scores: Mapping[str, float], columns: tuple[str, ...]) -> dict[str, Cell]:
    return {column: Cell(scores.get(column), None, best=False) for column in columns}


def _cell(scores: Mapping[str, Mapping[str, Any]], name: str, column: str) -> Cell:
    value = scores[name][column]
    known = [entry[column] for entry in scores.values() if entry[column] is not None]
    best = value is not None and len(known) > 1 and value == max(known)
    before = scores.get(previous_round(name) or "", {}).get(column)
    change = None if value is None or before is None else value - before
    return Cell(value, change, best)


def previous_round(name: str) -> str | None:
    """Return the detector of the previous round: cuvler_round0 for cuvler_round1."""
    try:
        previous = DetectorName.parse(name).previous
    except ValueError:  # a method: its pseudo-masks are scored
        return None
    return str(previous) if previous else None


@dataclass(frozen=True)
class RuleTime:
    """Run time and memory of a rule's jobs.

    Attributes:
        rule: the rule.
        jobs: number of recorded jobs.
        total: total seconds of all jobs.
        longest: seconds of the longest job.
        memory: largest memory of a job in MB; ``None`` if all were too short to be measured.
        cpu: CPU seconds of the jobs long enough to be measured.
        gpu: GPU seconds held by the jobs.
        share: share of the total time of all rules, 0-1.
    """

    rule: str
    jobs: int
    total: float
    longest: float
    memory: float | None
    cpu: float
    gpu: float
    share: float


@dataclass(frozen=True)
class _Job:
    """A line of a benchmark file: seconds, MB, CPU seconds."""

    seconds: float
    memory: float | None
    cpu: float


def rule_times(folder: Path, gpus: Mapping[str, int]) -> list[RuleTime]:
    """Read Snakemake's benchmark files and return the times by rule, longest first.

    Args:
        folder: folder of the files, with one subfolder per rule.
        gpus: rule -> GPUs held by each job.

    Raises:
        DataError: a file is not a benchmark.
    """
    jobs: dict[str, list[_Job]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        parts = path.relative_to(folder).parts
        jobs.setdefault(parts[0] if len(parts) > 1 else path.stem, []).extend(_benchmark(path))
    totals = {rule: sum(job.seconds for job in runs) for rule, runs in jobs.items()}
    whole = sum(totals.values()) or 1.0
    return [
        RuleTime(
            rule=rule,
            jobs=len(jobs[rule]),
            total=total,
            longest=max(job.seconds for job in jobs[rule]),
            memory=max((j.memory for j in jobs[rule] if j.memory is not None), default=None),
            cpu=sum(job.cpu for job in jobs[rule]),
            gpu=total * gpus.get(rule, 0),
            share=total / whole,
        )
        for rule, total in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    ]


def _benchmark(path: Path) -> list[_Job]:
    # Not by pandas, which takes a millisecond for each of thousands of files.
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        names = lines[0].split("\t")
        seconds, memory, cpu = (names.index(name) for name in ("s", "max_rss", "cpu_time"))
        rows = [line.split("\t") for line in lines[1:]]
        # Jobs shorter than Snakemake's sampling have neither memory nor processor time.
        return [
            _Job(float(row[seconds]), _measured(row[memory]), _measured(row[cpu]) or 0.0)
            for row in rows
        ]
    except (IndexError, ValueError):
        columns = "s, max_rss, cpu_time"
        raise DataError(f"{path}: not a Snakemake benchmark (columns {columns})") from None


def _measured(text: str) -> float | None:
    value = float("nan" if text in ("", "-", "NA") else text)
    return None if math.isnan(value) else value


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that affect results."""
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
