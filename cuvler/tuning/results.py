"""What the settings found in all images, and how well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuvler.tuning.grid import Row, Setting
from cuvler.tuning.trials import ImageTrials
from cuvler.tuning.truth import Score, Truth, result_records


@dataclass(frozen=True)
class Line:
    """A setting's averages over the images.

    Attributes:
        row: the row of the setting.
        setting: the setting.
        masks: found in an image.
        seconds: taken for an image, without the features.
        score: on all images; None without ground truth.
    """

    row: Row
    setting: Setting
    masks: float
    seconds: float
    score: Score | None


@dataclass
class Results:
    """The masks of all images, and their scores.

    Attributes:
        rows: the settings.
        truth: the ground truth; None without any.
    """

    rows: Sequence[Row]
    truth: Truth | None = None
    _counts: dict[Setting, list[int]] = field(default_factory=dict)
    _seconds: dict[Setting, list[float]] = field(default_factory=dict)
    _records: dict[Setting, dict[Path, list[dict[str, Any]]]] = field(default_factory=dict)

    def add(self, path: Path, found: ImageTrials) -> Mapping[Setting, Score]:
        """Add what was found in an image; return its scores, empty without ground truth."""
        scores = {}
        for setting, trial in found.trials.items():
            self._counts.setdefault(setting, []).append(len(trial.masks))
            self._seconds.setdefault(setting, []).append(trial.seconds)
            if self.truth is not None:
                records = result_records(trial.masks)
                self._records.setdefault(setting, {})[path] = records
                scores[setting] = self.truth.score({path: records})
        return scores

    def lines(self) -> list[Line]:
        """Return the averages of each setting; with ground truth, the best first."""
        lines = [
            Line(
                row,
                setting,
                _mean(self._counts.get(setting, [])),
                _mean(self._seconds.get(setting, [])),
                self.truth.score(self._records.get(setting, {})) if self.truth else None,
            )
            for row in self.rows
            for setting in row.settings
        ]
        if self.truth is None:
            return lines
        # Of equal scores, the fewer masks and the shorter time.
        return sorted(lines, key=lambda line: (_descending(line.score), line.masks))


def best_of(lines: Sequence[Line]) -> Line | None:
    """Return the first line; None without ground truth, or if no setting finds any object."""
    first = lines[0]
    return first if first.score and first.score.ap else None


def _descending(score: Score | None) -> tuple[float, float]:
    return (-(score.ap or 0.0), -(score.ap50 or 0.0)) if score else (0.0, 0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
