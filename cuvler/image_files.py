"""The images that a user names, as files or folders, and the names of what is made of each."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cuvler.errors import DataError
from cuvler.files import StrPath
from cuvler.image_folders import find_images, require_utf8
from cuvler.images import EXTENSIONS

# A file system allows 255 bytes; the rest is for endings and for the name of a temporary file.
_LONGEST = 180


@dataclass(frozen=True)
class ImageFile:
    """An image to process.

    Attributes:
        path: where it is.
        name: for records, unique: relative to the folder it was found in, with ``/``.
        stem: for outputs, unique: the name without its extension, shortened if it is very long.
    """

    path: Path
    name: str
    stem: str


def find_files(paths: Sequence[StrPath], *, without: StrPath | None = None) -> list[ImageFile]:
    """Return files and the images in folders, at any depth, each once; in order.

    Names are relative to the folder. If images of two folders then have the same name, all names
    are relative to the deepest folder that has them all.

    Args:
        paths: files and folders.
        without: a folder that is skipped, such as the one that results are written to.

    Raises:
        DataError: a folder cannot be read, has no images or is ``without``, or a name is not
            UTF-8.
    """
    found: dict[str, tuple[Path, str]] = {}
    for path in map(Path, paths):
        for name in _names(path, without):
            file = path / name if path.is_dir() else path
            # abspath, not realpath: two links to one file are two images.
            found.setdefault(os.path.abspath(file), (file, name))  # noqa: PTH100
    names = [name for _, name in found.values()]
    if len(set(names)) < len(names):
        common = os.path.commonpath([os.path.dirname(file) for file in found])  # noqa: PTH120
        names = [Path(os.path.relpath(file, common)).as_posix() for file in found]
    files = [file for file, _ in found.values()]
    return [ImageFile(*item) for item in zip(files, names, output_stems(names), strict=True)]


def _names(path: Path, without: StrPath | None) -> list[str]:
    if not path.is_dir():
        return [require_utf8(path.name)]
    if without is not None and os.path.realpath(path) == os.path.realpath(without):
        raise DataError(
            f"{path}: is also the folder to write to, in which a next run would find this run's "
            "pictures; choose another one",
            parameter="output",
        )
    names, _ = find_images(path, without=without)
    if not names:
        raise DataError(f"{path}: no image files ({', '.join(EXTENSIONS)}) in this folder")
    return names


def output_stems(names: Sequence[str]) -> list[str]:
    """Return the names without extensions, which are kept where two would become the same.

    A last part of more than 180 bytes is shortened, and ends in a digest.

    Args:
        names: unique file names, with ``/``.
    """
    stems = [_shortened(PurePosixPath(name), keep=False) for name in names]
    whole = [_shortened(PurePosixPath(name), keep=True) for name in names]
    while twice := {stem for stem, count in Counter(stems).items() if count > 1}:
        # With an extension, a name may become another's stem: a.jpg, a.png and a.jpg.png.
        stems = [full if stem in twice else stem for stem, full in zip(stems, whole, strict=True)]
    return stems


def _shortened(name: PurePosixPath, *, keep: bool) -> str:
    last = name.name if keep else name.stem
    encoded = last.encode()
    if len(encoded) > _LONGEST:
        digest = hashlib.sha256(str(name).encode()).hexdigest()[:8]
        last = f"{encoded[:_LONGEST].decode(errors='ignore')}~{digest}"
    return str(name.with_name(last))
