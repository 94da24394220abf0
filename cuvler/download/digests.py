"""SHA-256 digests of files, and ``.sha256`` files with recorded digests."""

import hashlib
from pathlib import Path

from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path


def file_sha256(path: StrPath) -> str:
    """Return a file's SHA-256 in hexadecimal.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise _unreadable(path, error) from error


def record_sha256(path: StrPath, digest: str) -> None:
    """Write ``path.sha256`` in the format of ``sha256sum --check``."""
    with atomic_path(_record(path)) as temporary:
        temporary.write_text(f"{digest}  {Path(path).name}\n", encoding="utf-8")


def forget_sha256(path: StrPath) -> None:
    """Delete ``path.sha256`` if it exists.

    Raises:
        DataError: the folder is not writable.
    """
    try:
        _record(path).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{_record(path)}: cannot be deleted ({error.strerror}); make the folder writable, or "
            "choose another, and run again"
        ) from error


def verified_sha256(path: StrPath) -> str:
    """Return a file's SHA-256, and check it against ``path.sha256`` if that exists.

    Raises:
        DataError: the file is missing, cannot be read, or differs from its recorded SHA-256.
    """
    digest = file_sha256(path)
    recorded = recorded_sha256(path)
    if recorded is not None and recorded != digest:
        raise DataError(
            f"{path}: its sha256 is not the one recorded in {_record(path)}; "
            "delete both files and download again"
        )
    return digest


def recorded_sha256(path: StrPath) -> str | None:
    """Return the first word of ``path.sha256``, in lower case, or None without such a file.

    Raises:
        DataError: ``path.sha256`` cannot be read.
    """
    try:
        text = _record(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(_record(path), error) from error
    return text.partition(" ")[0].strip().lower()


def _record(path: StrPath) -> Path:
    return Path(path).with_name(f"{Path(path).name}.sha256")


def _unreadable(path: StrPath, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror or error})")
