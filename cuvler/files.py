"""Atomic writes (temporary file, fsync, rename) and JSON helpers."""

import errno
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvler.errors import CuvlerError, DataError
from cuvler.json_text import decode_utf8

StrPath = str | os.PathLike[str]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PROBE = 2**20  # bytes


@contextmanager
def atomic_path(destination: StrPath) -> Iterator[Path]:
    """Yield a temporary path, and rename it to ``destination`` when the block succeeds.

    Missing parent folders are created. At any interruption ``destination`` is either the previous
    file or the new one, and the temporary file is deleted. Only ``kill -9`` can leave it behind,
    as ``.NAME.XXXX.part`` in the same folder; nothing reads it.

    Raises:
        DataError: the folder is not writable, or the file system is full.
    """
    destination = Path(destination)
    temporary = _temporary_for(destination)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        temporary.replace(destination)
        _sync(destination.parent)
    except CuvlerError:
        raise
    except Exception as error:
        if reason := _no_room(temporary, error):
            raise DataError(
                f"{destination}: cannot be written ({reason}); the partial file was deleted. "
                "Free space there, or choose another results folder, and run again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def full_disk_named(path: StrPath) -> Iterator[None]:
    """Raise the error of a full or read-only file system as a DataError that names ``path``.

    For files that others write, or that are written bit by bit; :func:`atomic_path` does the same.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        if not (is_full or getattr(error, "errno", None) in _NO_ROOM):
            raise
        where, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        raise DataError(
            f"{where or path}: cannot be written ({reason or error}); free space there, and run "
            "again"
        ) from error


@contextmanager
def atomic_folder(destination: Path) -> Iterator[Path]:
    """Yield a temporary folder, and rename it to ``destination`` when the block succeeds.

    Raises:
        DataError: there is a file, or a folder that is not empty; or the disk is full.
    """
    require_free(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(
            tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=".part")
        )
    except OSError as error:
        raise DataError(
            f"{destination}: cannot be written ({error.strerror})", parameter="output"
        ) from error
    try:
        with full_disk_named(destination):
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            require_free(destination)
            temporary.replace(destination)
            _sync(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_free(destination: Path) -> None:
    """Raise a DataError if there is a file, or a folder that is not empty."""
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if os.path.lexists(destination):
        raise DataError(
            f"{destination}: is there already; delete it or choose another folder",
            parameter="output",
        )


def _temporary_for(destination: Path) -> Path:
    """Create an empty temporary file in the destination's folder, and the folder if missing."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=destination.parent, prefix=f".{destination.name}.", suffix=".part"
        )
    except OSError as error:
        raise DataError(
            f"{destination}: cannot be written ({error.strerror}: {error.filename}); "
            "make the folder writable, or choose another results folder, and run again"
        ) from error
    os.close(handle)
    return Path(name)


def _no_room(temporary: Path, error: Exception) -> str | None:
    """Return the reason if ``error`` is a full or read-only file system, else None.

    torch and safetensors hide ENOSPC; probe with a small write to the temporary file.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return os.strerror(error.errno)
    try:
        with temporary.open("ab") as stream:
            stream.write(bytes(_PROBE))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as probed:
        return probed.strerror if probed.errno in _NO_ROOM else None
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: StrPath, content: Any) -> None:
    """Write ``content`` as one compact line of JSON, atomically; NaN raises a ValueError."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        # json.dumps, because json.dump to a stream uses the slow encoder in Python.
        stream.write(json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")


def read_json(path: StrPath) -> Any:
    """Read a JSON file that a stage has written.

    Raises:
        DataError: the file is missing, unreadable or not valid JSON; the message names it.
    """
    try:
        with open(path, "rb") as stream:
            return json.loads(decode_utf8(stream.read()))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError:
        raise DataError(f"{path}: not valid JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(
            f"{path}: not valid JSON ({error}); delete it and run again to recreate it"
        ) from error
