"""Finding the images under an image root, and checking later whether they are still the same."""

import hashlib
import logging
import os
import stat
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
_HIDDEN = "hidden"


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
    skipped: Counter[str]  # number of other entries, by what they are

    @property
    def state(self) -> FolderState:
        names = "\0".join(sorted(self.images)).encode(errors="surrogateescape")
        recent = time.time_ns() - self.mtime_ns < _CLOCK_TICK
        digest = hashlib.sha256(names).hexdigest()[:16] if self.images else ""
        return FolderState(0 if recent else self.mtime_ns, digest)


def find_images(
    image_root: StrPath, *, without: StrPath | None = None
) -> tuple[list[str], dict[str, FolderState]]:
    """Find the image files under a folder, at any depth.

    Skipped are hidden files and folders (``._x.jpg`` of macOS too), pipes, sockets and devices, and
    files with other extensions; one log line has their numbers. No file is opened. Links to
    folders are followed, each folder once.

    Args:
        image_root: the folder.
        without: a folder that is skipped, such as the one that results are written to.

    Returns:
        The sorted file names, relative to ``image_root`` with ``/``, and the state of every folder
        searched, by its name relative to ``image_root`` (``""`` for itself).

    Raises:
        DataError: a folder cannot be read, or a file name is not UTF-8.
    """
    images: list[str] = []
    folders: dict[str, FolderState] = {}
    skipped: Counter[str] = Counter()
    for folder in _search(Path(image_root), without=without):
        folders[folder.name] = folder.state
        images += (require_utf8(_join(folder.name, name)) for name in folder.images)
        skipped += folder.skipped
    if skipped:
        counts = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common(8))
        # Hidden files are of no interest, but others may be photographs of a raw format.
        level = logging.INFO if set(skipped) == {_HIDDEN} else logging.WARNING
        logger.log(level, "%s: %d images; skipped: %s", image_root, len(images), counts)
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


def _search(root: Path, start: str = "", *, without: StrPath | None = None) -> Iterator[_Folder]:
    """Read a folder and all folders below it, depth first and sorted."""
    # ImageNet is often a tree of links, and links can form loops.
    seen: set[str] = {os.path.realpath(without)} if without is not None else set()
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
    subfolders, images = [], []
    skipped: Counter[str] = Counter()
    with os.scandir(root / name) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                skipped[_HIDDEN] += 1
            elif _is_folder(entry):
                subfolders.append(_join(name, entry.name))
            elif not entry.name.lower().endswith(EXTENSIONS):
                skipped[Path(entry.name).suffix.lower() or "without extension"] += 1
            elif _is_special(entry):
                skipped["pipe/socket/device"] += 1
            else:
                images.append(entry.name)
    return _Folder(name, mtime_ns, subfolders, images, skipped)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def _is_special(entry: "os.DirEntry[str]") -> bool:
    """Check for a pipe, socket or device, which must not be opened; it may be behind a link."""
    if entry.is_file(follow_symlinks=False):  # without a system call
        return False
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a link to nothing or to itself: an image that is missing
        return False


def require_utf8(name: str) -> str:
    """Return a file name, or raise a DataError if it is not UTF-8."""
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
