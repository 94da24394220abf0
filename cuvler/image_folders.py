"""Finding the images under an image root, and checking later whether they are still the same."""

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cuvler.errors import DataError
from cuvler.files import StrPath
from cuvler.images import EXTENSIONS

logger = logging.getLogger(__name__)

# Coarsest timestamps of common file systems, in nanoseconds. A folder may change again within this
# time without a new modification time.
_CLOCK_TICK = 2_000_000_000


class FolderState(NamedTuple):
    """What identifies the images directly in a folder.

    Attributes:
        mtime_ns: modification time of the folder, which changes when an entry is added, removed or
            renamed; 0 if it is too recent to rely on.
        digest: of the names of its images; empty if it has none.
    """

    mtime_ns: int
    digest: str


@dataclass(frozen=True)
class _Folder:
    name: str  # relative to the image root, "" for the root itself
    mtime_ns: int
    subfolders: list[str]  # relative to the image root
    images: list[str]  # relative to the folder
    others: list[str]  # files that are no images, relative to the folder

    @property
    def state(self) -> FolderState:
        names = "\0".join(sorted(self.images)).encode(errors="surrogateescape")
        recent = time.time_ns() - self.mtime_ns < _CLOCK_TICK
        digest = hashlib.sha256(names).hexdigest()[:16] if self.images else ""
        return FolderState(0 if recent else self.mtime_ns, digest)


def find_images(image_root: StrPath) -> tuple[list[str], dict[str, FolderState]]:
    """Find the image files under a folder, at any depth.

    Hidden files and folders are ignored. Links to folders are followed, each folder once.

    Returns:
        The sorted file names, relative to ``image_root`` with ``/``, and the state of every folder
        searched, by its name relative to ``image_root`` (``""`` for itself).

    Raises:
        DataError: a folder cannot be read, or a file name is not UTF-8.
    """
    images: list[str] = []
    folders: dict[str, FolderState] = {}
    others: Counter[str] = Counter()
    for folder in _search(Path(image_root)):
        folders[folder.name] = folder.state
        images += (_utf8(_join(folder.name, name)) for name in folder.images)
        others.update(Path(name).suffix.lower() or "no extension" for name in folder.others)
    if others:  # e.g. .heic photographs of phones
        counts = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        logger.warning(
            "%s: ignored files other than %s: %s", image_root, "/".join(EXTENSIONS), counts
        )
    return sorted(images), folders


def images_digest(folders: Mapping[str, FolderState]) -> str:
    """Return a digest of the names of all images; empty if there are none."""
    parts = [f"{name}\0{state.digest}" for name, state in sorted(folders.items()) if state.digest]
    content = "\0".join(parts).encode(errors="surrogateescape")
    return hashlib.sha256(content).hexdigest()[:16] if parts else ""


def may_differ(image_root: StrPath, folders: Mapping[str, FolderState]) -> bool:
    """Check whether images may have been added or removed since :func:`find_images`.

    Only folders with another modification time are read again, so the check costs one ``stat`` a
    folder. Replaced file contents are not noticed.

    Args:
        image_root: the folder of images.
        folders: as returned by :func:`find_images`.

    Returns:
        False if the images are certainly the same.

    Raises:
        DataError: a folder cannot be read.
    """
    root = Path(image_root)
    return any(_may_differ(root, name, state, folders) for name, state in folders.items())


def _may_differ(
    root: Path, name: str, state: FolderState, folders: Mapping[str, FolderState]
) -> bool:
    try:
        if (root / name).stat().st_mtime_ns == state.mtime_ns:
            return False
        folder = _read(root, name)
    except (FileNotFoundError, NotADirectoryError):
        return bool(state.digest)
    except OSError as error:
        raise _unreadable(error) from error
    added = (sub for sub in folder.subfolders if sub not in folders)
    return folder.state.digest != state.digest or any(
        below.images for sub in added for below in _search(root, sub)
    )


def _search(root: Path, start: str = "") -> Iterator[_Folder]:
    """Read a folder and all folders below it, depth first and sorted."""
    # ImageNet is often a tree of links, and links can form loops.
    seen: set[str] = set()
    stack = [start]
    while stack:
        name = stack.pop()
        real = os.path.realpath(root / name)
        if real in seen:
            continue
        seen.add(real)
        try:
            folder = _read(root, name)
        except OSError as error:
            raise _unreadable(error) from error
        stack.extend(sorted(folder.subfolders, reverse=True))
        yield folder


def _read(root: Path, name: str) -> _Folder:
    # The time first: what changes while the names are read is noticed by the next check.
    mtime_ns = (root / name).stat().st_mtime_ns
    subfolders, images, others = [], [], []
    with os.scandir(root / name) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                subfolders.append(_join(name, entry.name))
            elif entry.name.lower().endswith(EXTENSIONS):
                images.append(entry.name)
            else:
                others.append(entry.name)
    return _Folder(name, mtime_ns, subfolders, images, others)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def _utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:  # JSON and parquet cannot store the name
        raise DataError(f"{name!a}: not UTF-8; rename the file or folder") from None
    return name


def _unreadable(error: OSError) -> DataError:
    return DataError(
        f"{error.filename}: cannot be read ({error.strerror}), so its images would be missing; "
        "make the folder readable, or move it out of the dataset"
    )
