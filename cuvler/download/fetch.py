"""Downloading a file, with resume, SHA-256 check and atomic rename."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from cuvler.download.digests import file_sha256, record_sha256, verified_sha256
from cuvler.download.drive import drive_id, fetch_drive
from cuvler.download.errors import FetchError
from cuvler.errors import ConfigError, DataError
from cuvler.extras import require_extra
from cuvler.files import StrPath

logger = logging.getLogger(__name__)


def download(
    source: str,
    destination: StrPath,
    *,
    sha256: str | None = None,
) -> str:
    """Download a file unless it exists, and write its SHA-256 to ``NAME.sha256``.

    The partial download is ``NAME.part``; a later call resumes it.

    Args:
        source: ``http(s)://...``, ``gdrive:ID`` or a link to a file on Google Drive.
        destination: the file to write; missing folders are created.
        sha256: the expected SHA-256, if known.

    Returns:
        The file's SHA-256.

    Raises:
        ConfigError: ``source`` is not a supported address.
        DataError: the file cannot be downloaded or written, or the SHA-256 of the download or of
            the existing file differs from the expected one.
    """
    destination = Path(destination)
    fetch = _fetcher(source)
    if destination.exists():
        digest = verified_sha256(destination)
        if sha256 and digest != sha256.lower():
            raise DataError(
                f"{destination}: exists, but its sha256 is {digest}, not {sha256}; "
                "delete it to download it again"
            )
        logger.info("%s: already exists", destination)
        return digest
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{destination.parent}: cannot be created ({error.strerror}); give another folder"
        ) from error
    part = destination.with_name(f"{destination.name}.part")
    digest = _fetch_checked(source, part, destination, sha256, fetch)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    # First, so that a file is never without its digest.
    record_sha256(destination, digest)
    part.replace(destination)
    if not sha256:
        logger.warning(
            "%s: no sha256 is known to compare it to%s",
            destination,
            ", and the connection was not encrypted (http)" * source.startswith("http:"),
        )
    return digest


def _fetcher(source: str) -> Callable[[str, Path], None]:
    if file_id := drive_id(source):
        return lambda _, part: fetch_drive(file_id, part)
    if source.startswith(("http://", "https://")):
        require_extra("download")
        from cuvler.download.http import fetch_http

        return fetch_http
    raise ConfigError(f"{source}: neither http(s)://..., gdrive:ID nor a known name")


def _fetch_checked(
    source: str,
    part: Path,
    destination: Path,
    sha256: str | None,
    fetch: Callable[[str, Path], None],
) -> str:
    """Download to ``part`` and return its SHA-256.

    If the SHA-256 of a resumed download is wrong, the download restarts once: the part left by
    an earlier run may be of another file.
    """
    digest = ""
    for resumed in (part.exists(), False):
        try:
            fetch(source, part)
        except FetchError as error:
            raise DataError(
                f"cannot download {source} ({error}); download it on a machine with network "
                f"and put it at {destination}"
            ) from error
        except OSError as error:
            raise DataError(f"{part}: cannot be written ({error}); free space there") from error
        digest = file_sha256(part)
        if sha256 is None or digest == sha256.lower():
            return digest
        part.unlink()
        if not resumed:
            break
    raise DataError(
        f"{source}: sha256 is {digest}, not the expected {sha256}; the download was "
        "deleted. Correct the expected sha256, or find out why the file has changed"
    )
