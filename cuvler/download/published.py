"""The table of published files."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class PublishedFile:
    """A published file.

    Attributes:
        file: its name, unique in the table.
        url: its address; see :func:`cuvler.download.download`.
        what: a one-line description.
        sha256: its SHA-256, if known.
        unpack: of an archive, the folder under the root of all datasets to unpack into.
        strip: number of leading folders to remove from the archive's names.
    """

    file: str
    url: str
    what: str
    sha256: str | None = None
    unpack: str | None = None
    strip: int = 0


@cache
def published_files() -> dict[str, PublishedFile]:
    """Return the published files by name."""
    import yaml

    entries = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {entry["file"]: PublishedFile(**entry) for entry in entries}
