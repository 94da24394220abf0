"""Files that are whole if they exist: written beside, synced, renamed."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvler.errors import CuvlerError, DataError

StrPath = str | os.PathLike[str]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PROBE = 2**20  # bytes


@contextmanager
def atomic_path(destination: StrPath) -> Iterator[Path]:
    """Yield a temporary path beside ``destination``; move it there when the block succeeds.

    The parent folders are made. Whatever stops the block, ``destination`` is either the
    former file or the new one, and the temporary file is gone (after a ``kill -9`` it may
    stay behind as ``.NAME.XXXX.part``, which nothing reads).

    Raises:
        DataError: the folder cannot be written to, or the file system is full.
    """
    destination = Path(destination)
    temporary = _beside(destination)
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
                f"{destination}: cannot be written ({reason}); nothing of it was kept. "
                "Make room there, or give another place for results, and run again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _beside(destination: Path) -> Path:
    """Make an empty file in the destination's folder, and the folder where it is missing."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=destination.parent, prefix=f".{destination.name}.", suffix=".part"
        )
    except OSError as error:
        raise DataError(
            f"{destination}: cannot be written ({error.strerror}: {error.filename}); "
            "make the folder writable, or give another place for results, and run again"
        ) from error
    os.close(handle)
    return Path(name)


def _no_room(temporary: Path, error: Exception) -> str | None:
    """Say why nothing more can be written, if that is what stopped the writer.

    torch and safetensors tell of a full file system in words of their own, so the file, which
    is given up anyway, is tried.
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
    """Write ``content`` as one compact line of JSON, atomically; NaN is refused."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        # In one piece: json.dump to a stream is the slow encoder, without C.
        stream.write(json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")


def read_json(path: StrPath) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, cannot be read or is not whole JSON; the message names
            it.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not valid JSON ({error}); delete what was made here and run again, "
            "fetch what was not again"
        ) from error
