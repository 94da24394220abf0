"""Unpacking archives safely into a folder."""

import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from cuvler.errors import DataError
from cuvler.files import StrPath

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)


def unpack(archive: StrPath, folder: StrPath, *, strip: int = 0) -> int:
    """Unpack a zip or tar archive; existing files of the same name are replaced.

    Files are unpacked to a temporary folder first, so a damaged archive leaves no files behind.

    Args:
        archive: ``.zip``, ``.tar``, ``.tar.gz``...; the format is detected from the content.
        folder: the destination; created if missing.
        strip: number of leading folders to remove from names; files with fewer are skipped.

    Returns:
        The number of files.

    Raises:
        DataError: the file is not an archive or is damaged, or it contains special files, or
            names or links that point outside the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked.") as temporary:
        try:
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, Path(temporary))
            elif tarfile.is_tarfile(archive):
                with tarfile.open(archive) as stream:
                    stream.extractall(temporary, filter="data")
            else:
                raise DataError(f"{archive}: neither a zip nor a tar archive")
            return _move(Path(temporary), folder, strip)
        except _DAMAGE as error:
            raise DataError(
                f"{archive}: cannot be unpacked ({error}); delete it and download it again"
            ) from error


def _unpack_zip(archive: StrPath, folder: Path) -> None:
    with zipfile.ZipFile(archive) as stream:
        for entry in stream.infolist():
            name = PurePosixPath(entry.filename)
            # zipfile silently rewrites such names, and extracts links as text files.
            if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(entry.external_attr >> 16):
                raise zipfile.BadZipFile(f"{entry.filename!r} points outside the folder")
        stream.extractall(folder)  # noqa: S202  its names are checked above


def _move(source: Path, folder: Path, strip: int) -> int:
    count = 0
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts[strip:]
        if (path.is_dir() and not path.is_symlink()) or not parts:
            continue
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        count += 1
    return count
