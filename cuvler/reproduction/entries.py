"""The published detectors and pseudo-masks, and the datasets they are scored on."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cuvler.config import Settings
from cuvler.datasets import Presence, presence
from cuvler.evaluation.compact import IouType

_FILE = Path(__file__).with_name("entries.yaml")


@dataclass(frozen=True)
class Entry:
    """A published detector or set of pseudo-masks; ``entries.yaml`` describes the fields."""

    name: str
    title: str
    file: str
    datasets: tuple[str, ...]
    iou_types: tuple[IouType, ...]
    detector_config: str | None = None
    published: str | None = None
    per_category: bool = False


@cache
def entries() -> dict[str, Entry]:
    """Return all entries by name, in the order of the table."""
    import yaml

    content = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    for item in content:
        item |= {key: tuple(item[key]) for key in ("datasets", "iou_types")}
    return {item["name"]: Entry(**item) for item in content}


def missing_datasets(settings: Settings) -> dict[str, str]:
    """Return the entries' datasets that are not available here, each with the reason.

    Only checks the file system; nothing is downloaded.

    Args:
        settings: the workflow's settings.
    """
    known = settings.datasets
    wanted = dict.fromkeys(name for entry in entries().values() for name in entry.datasets)
    reasons = {name: f"datasets.{name}: not in the config" for name in wanted if name not in known}
    names = [name for name in wanted if name in known]
    for found in presence(settings, names) if names else []:
        if reason := _missing(found):
            reasons[found.entry.name] = reason
    return {name: reasons[name] for name in wanted if name in reasons}


def _missing(found: Presence) -> str | None:
    if found.entry.ground_truth is None:
        return f"datasets.{found.entry.name}.ground_truth: not set; needed for scoring"
    if found.missing:
        source = f"; get it from {found.entry.source}" if found.entry.source else ""
        return f"missing: {', '.join(map(str, found.missing))}{source}"
    return None
