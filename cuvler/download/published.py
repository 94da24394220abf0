"""Files that are published, by name."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class PublishedFile:
    """A file for anyone to download.

    Attributes:
        file: its name, which it is asked for by.
        url: its address; see :func:`cuvler.download.download`.
        what: what it is, in a line.
        sha256: of its bytes, where it is known.
        unpack: the place of its content under the root of all datasets, of an archive.
        strip: leading folders of the archive that are left out there.
    """

    file: str
    url: str
    what: str
    sha256: str | None = None
    unpack: str | None = None
    strip: int = 0


@cache
def published_files() -> dict[str, PublishedFile]:
    """Give the published files by name."""
    import yaml

    entries = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {entry["file"]: PublishedFile(**entry) for entry in entries}
