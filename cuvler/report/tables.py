"""The report's numbers: metrics with their changes between rounds, times, versions."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cuvler.errors import DataError
from cuvler.evaluation import METRICS, published
from cuvler.evaluation.coco_files import IouType
from cuvler.evaluation.published_scores import Published
from cuvler.files import read_json
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
    "faster-coco-eval",
    "snakemake",
)


@dataclass(frozen=True)
class Cell:
    """One score in percent; its change against the round before; whether it is the best."""

    value: float | None
    change: float | None
    best: bool


@dataclass(frozen=True)
class MetricsTable:
    """A dataset's scores of masks or boxes.

    Attributes:
        title: Masks or Boxes.
        columns: names of the metrics, or of the entries where rows are classes.
        rows: entry or class -> column -> cell.
        published: scores of the papers, laid out like ``rows``; the best of a column is ours.
        sources: published entry -> where it is printed.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]
    published: dict[str, dict[str, Cell]]
    sources: dict[str, str]


def read_metrics(path: Path) -> dict[str, Any]:
    """Read what ``cuvler metrics`` wrote.

    Raises:
        DataError: the file is missing or holds something else.
    """
    entries = read_json(path)
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and IOU_TYPES.keys() & entry.keys() for entry in entries.values()
    ):
        raise DataError(f"{path}: not what `cuvler metrics` writes (entry -> bbox, segm)")
    return entries


def metrics_tables(
    dataset: str | None, entries: Mapping[str, Any], columns: tuple[str, ...] = METRICS
) -> list[MetricsTable]:
    """Lay out a dataset's scores, masks before boxes; those that no entry has are left out.

    Args:
        dataset: whose published scores stand beside them; ``None`` where there are none.
        entries: entry -> what ``cuvler evaluation`` wrote.
        columns: the metrics.
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
    """Lay out the AP of each class, a class a row and an entry a column, masks before boxes."""
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
    """Tell apart what several papers print of one detector."""
    return f"{entry.name}, {entry.source.split(',')[0]}"


def _published_cells(scores: Mapping[str, float], columns: tuple[str, ...]) -> dict[str, Cell]:
    return {column: Cell(scores.get(column), None, best=False) for column in columns}


def _cell(scores: Mapping[str, Mapping[str, Any]], name: str, column: str) -> Cell:
    value = scores[name][column]
    known = [entry[column] for entry in scores.values() if entry[column] is not None]
    best = value is not None and len(known) > 1 and value == max(known)
    before = scores.get(round_before(name) or "", {}).get(column)
    change = None if value is None or before is None else value - before
    return Cell(value, change, best)


def round_before(name: str) -> str | None:
    """Name the detector that ``name`` was self-trained from: cuvler_round1, cuvler_round0."""
    try:
        previous = DetectorName.parse(name).previous
    except ValueError:  # a method, whose pseudo-masks are scored
        return None
    return str(previous) if previous else None


@dataclass(frozen=True)
class RuleTime:
    """What a rule's jobs took.

    Attributes:
        rule: its name.
        jobs: how many are on record.
        total: seconds of all jobs in sum.
        longest: seconds of the longest job.
        memory: MB of the largest job; ``None`` where all were too short to be measured.
        cpu: seconds of processors, of the jobs long enough to be measured.
        gpu: seconds of GPUs that the jobs held.
        share: of the time of all rules, 0-1.
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
    """One line of a benchmark file: seconds, MB, seconds of processors."""

    seconds: float
    memory: float | None
    cpu: float


def rule_times(folder: Path, gpus: Mapping[str, int]) -> list[RuleTime]:
    """Read Snakemake's benchmark files, a sub-folder a rule; the longest rule comes first.

    Args:
        folder: the files.
        gpus: rule -> GPUs each of its jobs held.

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
    import pandas as pd

    table = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
    columns = ("s", "max_rss", "cpu_time")
    if not set(columns) <= set(table.columns):
        raise DataError(f"{path}: not a Snakemake benchmark (columns {', '.join(columns)})")
    # Jobs shorter than Snakemake's sampling have neither memory nor processor time.
    return [
        _Job(float(s), None if pd.isna(memory) else float(memory), 0.0 if pd.isna(c) else float(c))
        for s, memory, c in table[list(columns)].itertuples(index=False)
    ]


def versions() -> dict[str, str]:
    """Give the versions of Python and the packages that make the results, as far as installed."""
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
