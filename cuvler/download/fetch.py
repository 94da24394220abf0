"""From an address to a file that is whole, checked and in its place."""

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
    """Download a file, unless it is there, and record its sha256 beside it.

    While it comes it is called ``NAME.part``, from which a later call goes on.

    Args:
        source: ``http(s)://...``, ``gdrive:ID`` or a link to a file on Google Drive.
        destination: the file to write, and its folders.
        sha256: what the digest must be, where it is known.

    Returns:
        The file's sha256.

    Raises:
        ConfigError: no address that can be downloaded from.
        DataError: the file cannot be had or written, or is not the one that was pinned; or
            what is there is another one.
    """
    destination = Path(destination)
    fetch = _fetcher(source)
    if destination.exists():
        digest = verified_sha256(destination)
        if sha256 and digest != sha256.lower():
            raise DataError(
                f"{destination}: is there, but its sha256 is {digest}, not {sha256}; "
                "delete it to have it downloaded"
            )
        logger.info("%s: is there already", destination)
        return digest
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{destination.parent}: cannot be made ({error.strerror}); give another folder"
        ) from error
    part = destination.with_name(f"{destination.name}.part")
    digest = _fetch_checked(source, part, destination, sha256, fetch)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(destination)
    record_sha256(destination, digest)
    return digest


def _fetcher(source: str) -> Callable[[str, Path], None]:
    if file_id := drive_id(source):
        return lambda _, part: fetch_drive(file_id, part)
    if source.startswith(("http://", "https://")):
        require_extra("download")
        from cuvler.download.http import fetch_http

        return fetch_http
    raise ConfigError(f"{source}: neither http(s)://..., gdrive:ID nor a name that is known")


def _fetch_checked(
    source: str,
    part: Path,
    destination: Path,
    sha256: str | None,
    fetch: Callable[[str, Path], None],
) -> str:
    """Fetch to ``part`` and give its digest; once more from the beginning if it is wrong.

    What an earlier run left may be of another file than the server says.
    """
    digest = ""
    for begun in (part.exists(), False):
        try:
            fetch(source, part)
        except FetchError as error:
            raise DataError(
                f"cannot download {source} ({error}); download it on a machine with network "
                f"and put it at {destination}"
            ) from error
        except OSError as error:
            raise DataError(f"{part}: cannot be written ({error}); make room there") from error
        digest = file_sha256(part)
        if sha256 is None or digest == sha256.lower():
            return digest
        part.unlink()
        if not begun:
            break
    raise DataError(
        f"{source}: sha256 is {digest}, not the expected {sha256}; nothing was kept. "
        "Correct the pin, or find out why the file has changed"
    )
