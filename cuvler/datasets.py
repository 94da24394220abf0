"""The datasets of a config and which of their files exist on this machine."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvler.config import Dataset, dataset
from cuvler.errors import ConfigError
from cuvler.extras import require_extra
from cuvler.files import StrPath

MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Presence:
    """A dataset and which of its files exist.

    Attributes:
        entry: the dataset's entry in the config.
        missing: its files and folders that do not exist, and folders that are empty.
        made: whether its ground truth has been made; None if the annotations are used as they are.
    """

    entry: Dataset
    missing: list[Path]
    made: bool | None


def read_config(paths: Sequence[StrPath]) -> dict[str, Any]:
    """Read config files as Snakemake does: later files override earlier ones, key by key.

    Raises:
        ConfigError: a file is missing or not a YAML mapping, or a required key is in none of them.
    """
    require_extra("workflow")
    import yaml
    from snakemake.utils import update_config  # type: ignore[import-untyped]

    config: dict[str, Any] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as stream:
                settings = yaml.safe_load(stream) or {}
            if not isinstance(settings, dict):
                raise ConfigError(f"{path}: not a mapping (key: value) but {settings!r:.80}")
            update_config(config, settings)
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no such file; run this in the folder in which Snakemake runs"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not YAML ({error})") from error
    missing = {"datasets", "datasets_root", "images", "results"} - config.keys()
    if missing:
        names = ", ".join(map(str, paths))
        raise ConfigError(f"{names}: missing {', '.join(sorted(missing))}")
    return config


def presence(config: Mapping[str, Any], names: Sequence[str] = ()) -> list[Presence]:
    """Check which files of a config's datasets exist.

    Args:
        config: the workflow's settings.
        names: the datasets to check; all if empty.

    Raises:
        ConfigError: a dataset is not in the config.
    """
    unknown = [name for name in names if name not in config["datasets"]]
    if unknown:
        known = ", ".join(config["datasets"])
        raise ConfigError(f"{', '.join(unknown)}: not in the config; known: {known}")
    return [_check(dataset(config, name)) for name in names or config["datasets"]]


def _check(entry: Dataset) -> Presence:
    made = None
    wanted = [entry.images]
    if entry.ground_truth:
        wanted += entry.ground_truth.files
        made = entry.annotations is not None and entry.annotations.exists()
    elif entry.annotations:
        wanted.append(entry.annotations)
    return Presence(entry, [path for path in wanted if not _exists(path)], made)


def _exists(path: Path) -> bool:
    if not path.is_dir():
        return path.exists()
    with os.scandir(path) as entries:
        return next(entries, None) is not None
