"""sha256 digests of files, and the record of one beside its file."""

import hashlib
from pathlib import Path

from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path


def file_sha256(path: StrPath) -> str:
    """Give a file's sha256 in hexadecimal.

    Raises:
        DataError: the file is missing.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None


def record_sha256(path: StrPath, digest: str) -> None:
    """Write ``path.sha256``, as ``sha256sum --check`` reads it."""
    with atomic_path(_record(path)) as temporary:
        temporary.write_text(f"{digest}  {Path(path).name}\n", encoding="utf-8")


def verified_sha256(path: StrPath) -> str:
    """Give a file's sha256, which must be the one recorded beside it, if one is.

    Raises:
        DataError: the file is missing, or has changed since it was fetched.
    """
    digest = file_sha256(path)
    record = _record(path)
    if record.exists() and record.read_text(encoding="utf-8").split()[:1] != [digest]:
        raise DataError(
            f"{path}: is not the file whose sha256 {record} records; "
            "delete both and fetch them again"
        )
    return digest


def _record(path: StrPath) -> Path:
    return Path(path).with_name(f"{Path(path).name}.sha256")
