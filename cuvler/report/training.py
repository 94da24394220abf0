"""Losses and scores of a detector, from detectron2's ``metrics.json``."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.errors import DataError

# A picture in a detector's folder: training samples after copy-paste.
AUGMENTED = "augmented.png"

# Curves and the prefixes of detectron2's losses that they sum.
_PARTS = {
    "classification": "loss_cls",
    "boxes": "loss_box_reg",
    "masks": "loss_mask",
    "proposals": "loss_rpn",
}
# Scores during training and detectron2's names of them.
_SCORES = {"boxes": "bbox/AP", "masks": "segm/AP"}


@dataclass(frozen=True)
class Losses:
    """Loss and score curves of one detector.

    Attributes:
        iterations: (n,) ascending.
        curves: ``total`` and its parts -> (n,); NaN if a line lacks the part.
        broken_lines: number of unreadable lines; a killed job can leave one.
        skipped_batches: number of batches skipped because of infinite or NaN losses.
        scores: ``boxes`` and ``masks`` -> iterations (m,) and AP in percent (m,), where the
            detector was scored during training.
    """

    iterations: NDArray[np.int64]
    curves: dict[str, NDArray[np.float64]]
    broken_lines: int
    skipped_batches: int = 0
    scores: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=dict)


def read_losses(folder: Path) -> Losses:
    """Read ``metrics.json`` in a detector's folder.

    If a resumed run repeated iterations, the later lines are used.

    Raises:
        DataError: the file is missing or has no losses.
    """
    path = folder / "metrics.json"
    records: dict[int, dict[str, Any]] = {}
    scores: dict[str, dict[int, float]] = {part: {} for part in _SCORES}
    broken = skipped = 0
    try:
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    broken += 1
                    continue
                skipped = max(skipped, int(record.get("skipped_batches", 0)))
                for part, name in _SCORES.items():
                    if name in record:
                        scores[part][record["iteration"]] = float(record[name])
                if "total_loss" in record:
                    records[record["iteration"]] = record
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    if not records:
        raise DataError(f"{path}: has no line with a total_loss; was the detector trained?")
    ordered = [records[iteration] for iteration in sorted(records)]
    curves = {"total": np.array([float(record["total_loss"]) for record in ordered])}
    for part, prefix in _PARTS.items():
        values = np.array([_sum_of(record, prefix) for record in ordered])
        if not np.isnan(values).all():
            curves[part] = values
    return Losses(
        np.array(sorted(records), dtype=np.int64),
        curves,
        broken,
        skipped,
        {part: _curve(values) for part, values in scores.items() if values},
    )


def _curve(values: dict[int, float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    iterations = sorted(values)
    return np.array(iterations, dtype=np.int64), np.array([values[i] for i in iterations])


def _sum_of(record: dict[str, Any], prefix: str) -> float:
    values = [float(value) for name, value in record.items() if name.startswith(prefix)]
    return sum(values) if values else float("nan")
