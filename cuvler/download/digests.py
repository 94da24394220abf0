"""SHA-256 digests of files, and ``.sha256`` files with recorded digests."""

import hashlib
from pathlib import Path

from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path


def file_sha256(path: StrPath) -> str:
    """Return a file's SHA-256 in hexadecimal.

    Raises:
        DataError: the file is missing.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None


def record_sha256(path: StrPath, digest: str) -> None:
    """Write ``path.sha256`` in the format of ``sha256sum --check``."""
    with atomic_path(_record(path)) as temporary:
        temporary.write_text(f"{digest}  {Path(path).name}\n", encoding="utf-8")


def verified_sha256(path: StrPath) -> str:
    """Return a file's SHA-256, and check it against ``path.sha256`` if that exists.

    Raises:
        DataError: the file is missing, or differs from its recorded SHA-256.
    """
    digest = file_sha256(path)
    record = _record(path)
    if record.exists() and record.read_text(encoding="utf-8").split()[:1] != [digest]:
        raise DataError(
            f"{path}: its sha256 is not the one recorded in {record}; "
            "delete both files and download again"
        )
    return digest


def _record(path: StrPath) -> Path:
    return Path(path).with_name(f"{Path(path).name}.sha256")
