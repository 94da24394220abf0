"""The datasets of a config and which of their files exist on this machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvler.config import Dataset, Settings
from cuvler.errors import ConfigError

MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Presence:
    """A dataset and which of its files exist.

    Attributes:
        entry: the dataset's entry in the config.
        missing: its files and folders that do not exist, and folders that are empty.
        made: whether its ground truth has been made; None if the user's file is used unchanged.
    """

    entry: Dataset
    missing: list[Path]
    made: bool | None


def presence(settings: Settings, names: Sequence[str] = ()) -> list[Presence]:
    """Check which files of a config's datasets exist.

    Args:
        settings: the workflow's settings.
        names: the datasets to check; all if empty.

    Raises:
        ConfigError: a dataset is not in the config.
    """
    unknown = [name for name in names if name not in settings.datasets]
    if unknown:
        known = ", ".join(settings.datasets)
        raise ConfigError(f"{', '.join(unknown)}: not in the config; known: {known}")
    return [_check(settings.dataset(name)) for name in names or settings.datasets]


def _check(entry: Dataset) -> Presence:
    made = None
    wanted = [entry.images]
    if entry.made_from:
        wanted += entry.made_from.files
        made = entry.ground_truth is not None and entry.ground_truth.exists()
    elif entry.ground_truth:
        wanted.append(entry.ground_truth)
    if entry.predictions:
        wanted.append(entry.predictions)
    return Presence(entry, [path for path in wanted if not _exists(path)], made)


def _exists(path: Path) -> bool:
    if not path.is_dir():
        return path.exists()
    with os.scandir(path) as entries:
        return next(entries, None) is not None
