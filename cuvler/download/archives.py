"""Unpacking archives safely into a folder."""

import errno
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from cuvler.errors import DataError
from cuvler.files import StrPath

_CHUNK = 2**20  # bytes
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


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
        DataError: the file is not an archive or is damaged; it contains links, special files or
            names that lead out of the folder; a link in the folder leads out of it; two files get
            the same name; or a file cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked.") as temporary:
            _extract(archive, Path(temporary))
            targets = _targets(archive, Path(temporary), folder, strip)
            for path, target in targets.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            return len(targets)
    except OSError as error:
        raise DataError(
            f"{error.filename2 or error.filename or folder}: cannot be written "
            f"({error.strerror or error}) while {archive} is unpacked; free space there, or remove "
            "what is in the way"
        ) from error


def _extract(archive: StrPath, folder: Path) -> None:
    """Extract everything, and check the archive up to its end.

    Raises:
        DataError: the archive is damaged, or has members other than files and folders inside.
        OSError: a file cannot be written.
    """
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _extract_tar(archive, folder)
        else:
            raise DataError(f"{archive}: neither a zip nor a tar archive")
    except DataError:
        raise
    # On damaged archives the readers raise anything, RuntimeError and ValueError included.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise
        raise DataError(
            f"{archive}: cannot be unpacked ({error}); delete it and download it again"
        ) from error


def _extract_zip(archive: StrPath, folder: Path) -> None:
    with zipfile.ZipFile(archive) as stream:
        for entry in stream.infolist():
            name = PurePosixPath(entry.filename)
            # zipfile silently rewrites such names, and extracts links as text files.
            if name.is_absolute() or ".." in name.parts:
                raise _refusal(archive, entry.filename, "points outside the folder")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise _refusal(archive, entry.filename, "is a link")
        stream.extractall(folder)  # noqa: S202  its names are checked above


def _extract_tar(archive: StrPath, folder: Path) -> None:
    def files_and_folders(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        # Links inside the archive can lead out of the folder once leading folders are stripped.
        if not (member.isfile() or member.isdir()):
            raise _refusal(archive, member.name, "is a link or a special file")
        try:
            return tarfile.data_filter(member, path)
        except tarfile.OutsideDestinationError:
            raise _refusal(archive, member.name, "points outside the folder") from None

    with tarfile.open(archive) as stream:
        stream.extractall(folder, filter=files_and_folders)  # noqa: S202
        _check_end(stream)


def _check_end(stream: tarfile.TarFile) -> None:
    """Check that only zeros follow the last member: tarfile takes a damaged header for the end.

    A compressed archive is read to its end, where its checksum is.
    """
    assert stream.fileobj is not None
    stream.fileobj.seek(stream.offset)
    size = 0
    while chunk := stream.fileobj.read(_CHUNK):
        size += len(chunk)
        if any(chunk):
            raise tarfile.ReadError(f"no header of a file at byte {stream.offset:,}")
    if size < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")


def _refusal(archive: StrPath, name: str, reason: str) -> DataError:
    return DataError(
        f"{archive}: cannot be unpacked, because {name!r} {reason}; unpack what you need of it by "
        "hand if you trust its source"
    )


def _targets(archive: StrPath, source: Path, folder: Path, strip: int) -> dict[Path, Path]:
    """Return extracted file -> destination, all of them inside the folder."""
    root = folder.resolve()
    sources: dict[Path, Path] = {}
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts[strip:]
        if path.is_dir() or not parts:
            continue
        target = folder.joinpath(*parts)
        if not target.parent.resolve().is_relative_to(root):
            raise DataError(
                f"{archive}: cannot be unpacked, because a link in {folder} leads out of it: "
                f"{target} would be {target.resolve()}; unpack to {target.parent.resolve()}"
            )
        other = sources.setdefault(target, path).relative_to(source)
        if other != path.relative_to(source):
            raise DataError(
                f"{archive}: cannot be unpacked, because {str(other)!r} and "
                f"{str(path.relative_to(source))!r} would both be {target}"
            )
    return {path: target for target, path in sources.items()}
