"""Build and parse the paths of a run's files and the names of detectors.

A :class:`File` describes one kind of file, such as listings. Its path is a pattern with wildcards
in Snakemake's notation, which rules use directly. The paths of logs and benchmarks derive from it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Self

from cuvler.files import StrPath

_NAME = "[A-Za-z0-9_-]+"
_NUMBER = "(?:0|[1-9][0-9]*)"
_DETECTOR = re.compile(
    rf"(?P<recipe>{_NAME})_round(?P<round>{_NUMBER})(?:_(?P<percent>{_NUMBER})percent)?"
)

# Regular expressions of the wildcards' values.
WILDCARDS: Mapping[str, str] = {
    "dataset": _NAME,
    "method": _NAME,
    "backbone": _NAME,
    "shard": _NUMBER,
    "detector": f"{_NAME}_round{_NUMBER}",
    "fine_tuned": f"{_NAME}_round{_NUMBER}_{_NUMBER}percent",
    "entry": _NAME,
    "percent": _NUMBER,
    "file": "[A-Za-z0-9_.-]+",
    "format": "csv|md",
}

LOGS = "logs"
BENCHMARKS = "benchmarks"


@dataclass(frozen=True)
class DetectorName:
    """The name of a detector: ``cuvler_round1``, or fine-tuned ``cuvler_round1_5percent``.

    Attributes:
        recipe: a key of ``recipes`` in the config.
        round: round of self-training; 0 is the detector trained on pseudo-masks.
        percent: percentage of the labels it was fine-tuned on; ``None`` if not fine-tuned.
    """

    recipe: str
    round: int
    percent: int | None = None

    def __str__(self) -> str:
        end = "" if self.percent is None else f"_{self.percent}percent"
        return f"{self.recipe}_round{self.round}{end}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse a name as written by ``str``.

        Raises:
            ValueError: not a detector's name.
        """
        match = _DETECTOR.fullmatch(name)
        if match is None:
            raise ValueError(
                f"{name!r} is not a detector's name: RECIPE_roundN or RECIPE_roundN_Ppercent"
            )
        percent = match["percent"]
        return cls(match["recipe"], int(match["round"]), int(percent) if percent else None)

    @property
    def previous(self) -> Self | None:
        """The detector that made the predictions this one was trained on; ``None`` for round 0."""
        if self.round == 0 or self.percent is not None:
            return None
        return replace(self, round=self.round - 1)

    @property
    def pretrained(self) -> Self:
        """The detector that this one was fine-tuned from."""
        return replace(self, percent=None)


@dataclass(frozen=True)
class File:
    """One kind of file.

    Attributes:
        rule: the rule that writes it.
        pattern: its path relative to ``root``, with wildcards.
        job: a pattern that identifies the job; names the log.
        root: pathvar of the folder that contains it, ``results`` or ``resources``.
    """

    rule: str
    pattern: str
    job: str
    root: str = "results"

    @property
    def output(self) -> str:
        """The path as a rule's input or output, with pathvar and wildcards."""
        return f"<{self.root}>/{self.pattern}"

    @property
    def log(self) -> str:
        """The path of the rule's log."""
        return f"<{LOGS}>/{self.job}.log"

    @property
    def benchmark(self) -> str:
        """The path of the rule's benchmark."""
        return f"<{BENCHMARKS}>/{self._benchmark}"

    @property
    def _benchmark(self) -> str:
        # Without the folders common to all jobs of the rule.
        return f"{self.rule}/{self.job[max(self.job.find('{'), 0) :]}.tsv"

    def of(self, **names: object) -> str:
        """Return :attr:`output` with some wildcards filled in.

        Raises:
            KeyError: the pattern has no such wildcard.
            ValueError: a value does not match its wildcard.
        """
        return f"<{self.root}>/{_fill(self.pattern, names)}"

    def under(self, root: StrPath, **names: object) -> Path:
        """Return the path of one file in the folder ``root``.

        Raises:
            KeyError: a wildcard is missing, or the pattern has no such wildcard.
            ValueError: a value does not match its wildcard.
        """
        filled = _fill(self.pattern, names)
        if missing := _wildcards(filled):
            raise KeyError(f"{self.pattern}: no {missing[0]} given")
        return Path(root, filled)

    def names(self, path: StrPath) -> dict[str, str]:
        """Return the wildcards' values in the path of such a file, in any folder.

        Raises:
            ValueError: not the path of such a file.
        """
        last_parts = Path(path).parts[-self._depth - 1 :]
        match = _regex(self.pattern).fullmatch("/".join(last_parts))
        if match is None:
            raise ValueError(f"{os.fspath(path)}: not a file of rule {self.rule}, {self.pattern}")
        return match.groupdict()

    @property
    def _depth(self) -> int:
        return self.pattern.count("/")

    def root_of(self, path: StrPath) -> Path:
        """Return the folder that such a file's path is relative to, such as the results folder."""
        return Path(path).parents[self._depth]

    def log_of(self, path: StrPath, results: StrPath) -> Path:
        """Return the log of the job that writes a file, given the results folder."""
        return Path(results, LOGS, f"{self.job.format(**self.names(path))}.log")

    def benchmark_of(self, path: StrPath, results: StrPath) -> Path:
        """Return the benchmark of the job that writes a file; it need not exist."""
        return Path(results, BENCHMARKS, self._benchmark.format(**self.names(path)))


def _wildcards(pattern: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", pattern)


def _fill(pattern: str, names: Mapping[str, object]) -> str:
    """Replace some wildcards by values."""
    for wildcard, name in names.items():
        if wildcard not in _wildcards(pattern):
            raise KeyError(f"{pattern}: has no wildcard {wildcard}")
        if not re.fullmatch(WILDCARDS[wildcard], str(name)):
            raise ValueError(f"{wildcard} {str(name)!r}: not of the form {WILDCARDS[wildcard]}")
        pattern = pattern.replace(f"{{{wildcard}}}", str(name))
    return pattern


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    literals = [re.escape(part) for part in re.split(r"\{\w+\}", pattern)]
    groups = [f"(?P<{name}>{WILDCARDS[name]})" for name in _wildcards(pattern)]
    return re.compile("".join(map("".join, zip(literals, [*groups, ""], strict=True))))


def _file(rule: str, pattern: str, *, job: str = "", root: str = "results") -> File:
    """Return a kind of file; by default its log has its path without suffixes."""
    folder, slash, name = pattern.rpartition("/")
    return File(rule, pattern, job or f"{folder}{slash}{name.partition('.')[0]}", root)


WEIGHTS = _file("weights", "weights/{backbone}.safetensors", root="resources")
DOWNLOAD = _file("download", "downloads/{file}", job="download/{file}", root="resources")
GROUND_TRUTH = _file("ground_truth", "ground_truth/{dataset}.json")
# The default folder of downloads, relative to the working directory.
DOWNLOADS = Path(DOWNLOAD.root, DOWNLOAD.pattern).parent
LISTING = _file("images", "images/{dataset}.parquet")
EIGENVECTORS = _file("eigenvectors", "eigenvectors/{dataset}/{method}/{backbone}/{shard}.zarr.zip")
PSEUDO_MASKS = _file("pseudo_masks", "pseudo_masks/{dataset}/{method}/{shard}.json")
ANNOTATIONS = _file("annotations", "annotations/{dataset}/{method}.json")
DETECTOR = _file("detector", "detectors/{detector}/model_final.pth", job="detectors/{detector}")
PREDICTIONS = _file("predictions", "predictions/{detector}/{dataset}.json")
SELF_TRAINING = _file("self_training", "self_training/{detector}.json")
EVALUATION = _file("evaluation", "evaluation/{dataset}/{entry}.json")
METRICS = _file("metrics", "{dataset}_metrics.json", job="metrics/{dataset}")
TABLE = _file("table", "table.{format}")
MODEL_CARD = _file("model_card", "detectors/{detector}/README.md", job="model_card/{detector}")
SPLIT = _file("splits", "splits/{dataset}/{percent}.json", job="splits/{dataset}")
FINE_TUNING = _file(
    "fine_tuning",
    "fine_tuning/detectors/{fine_tuned}/model_final.pth",
    job="fine_tuning/detectors/{fine_tuned}",
)
FINE_TUNING_PREDICTIONS = _file(
    "fine_tuning_predictions", "fine_tuning/predictions/{fine_tuned}/{dataset}.json"
)
FINE_TUNING_EVALUATION = _file(
    "fine_tuning_evaluation", "fine_tuning/evaluation/{dataset}/{fine_tuned}.json"
)
FINE_TUNING_METRICS = _file("fine_tuning_metrics", "fine_tuning/{dataset}_metrics.json")
FINE_TUNING_MODEL_CARD = _file(
    "fine_tuning_model_card",
    "fine_tuning/detectors/{fine_tuned}/README.md",
    job="fine_tuning/model_card/{fine_tuned}",
)
REPORT = _file("report", "report.html")
REPRODUCTION_FILE = _file("reproduction_file", "reproduction/files/{entry}.file")
REPRODUCTION_PREDICTIONS = _file(
    "reproduction_predictions", "reproduction/predictions/{entry}/{dataset}.json"
)
REPRODUCTION_EVALUATION = _file(
    "reproduction_evaluation", "reproduction/evaluation/{dataset}/{entry}.json"
)
REPRODUCTION = _file("reproduction", "reproduction.md")

# By rule, in the order in which the pipeline writes them.
FILES: Mapping[str, File] = {
    file.rule: file
    for file in (
        DOWNLOAD,
        WEIGHTS,
        GROUND_TRUTH,
        LISTING,
        EIGENVECTORS,
        PSEUDO_MASKS,
        ANNOTATIONS,
        DETECTOR,
        PREDICTIONS,
        SELF_TRAINING,
        EVALUATION,
        METRICS,
        TABLE,
        MODEL_CARD,
        SPLIT,
        FINE_TUNING,
        FINE_TUNING_PREDICTIONS,
        FINE_TUNING_EVALUATION,
        FINE_TUNING_METRICS,
        FINE_TUNING_MODEL_CARD,
        REPORT,
        REPRODUCTION_FILE,
        REPRODUCTION_PREDICTIONS,
        REPRODUCTION_EVALUATION,
        REPRODUCTION,
    )
}


def file_of(rule: str, path: StrPath) -> File:
    """Return the kind of a planned file; each file of a user's own rule is a kind of its own."""
    return FILES.get(rule) or _file(rule, Path(path).as_posix().lstrip("/"))
