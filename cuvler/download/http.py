"""Resumable HTTP downloads (RFC 9110, sections 13 and 14)."""

import json
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from cuvler.download.errors import FetchError
from cuvler.files import write_json
from cuvler.progress import Progress

logger = logging.getLogger(__name__)

_CHUNK = 1 << 16  # bytes; a partial chunk is lost when a connection breaks
_MEGABYTE = 10**6
_TIMEOUT = (20, 60)  # seconds to connect, and between two reads
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # status codes to retry


class _TransientError(Exception):
    """An error that another attempt may resolve, after ``wait`` seconds if the server asks."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Version:
    """The identity of a version of a file: its address, and its ETag or modification time."""

    url: str
    mark: str

    @classmethod
    def of(cls, response: requests.Response, url: str) -> "_Version":
        mark = response.headers.get("ETag", "")
        # A weak ETag does not identify the bytes, so it cannot be used for ranges.
        if not mark or mark.startswith("W/"):
            mark = response.headers.get("Last-Modified", "")
        return cls(url, mark)

    @classmethod
    def read(cls, path: Path) -> "_Version | None":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(content["url"], content["mark"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # The download then restarts.


def fetch_http(
    url: str, part: Path, *, attempts: int = 5, pause: float = 1.0, show: bool = True
) -> None:
    """Download to ``part``, resuming an earlier call's download.

    It resumes only if the server confirms that the file has not changed (``If-Range``).
    Otherwise, or if the server ignores ranges, it restarts.

    Args:
        url: ``http`` or ``https``.
        part: the file to write; ``part.json`` records the version of the file.
        attempts: number of consecutive attempts that may fail without receiving a byte.
        pause: seconds after the first failure; doubled after each further one.
        show: show progress.

    Raises:
        FetchError: the server has no such file, or all attempts failed. ``part`` is kept.
    """
    failures = 0
    while True:
        size = _size(part)
        try:
            _attempt(url, part, show)
            return
        except (requests.ConnectionError, requests.Timeout, _TransientError) as error:
            reason: Exception = error
        except requests.exceptions.ChunkedEncodingError as error:
            reason = error
        except requests.RequestException as error:
            raise FetchError(f"{error}") from error
        failures = 1 if _size(part) > size else failures + 1
        if failures >= attempts:
            raise FetchError(f"{reason}, after {attempts} attempts") from reason
        wait = max(pause * 2 ** (failures - 1), getattr(reason, "wait", 0.0))
        logger.info("%s: %s; another attempt in %g s", url, reason, wait)
        time.sleep(wait)


def _attempt(url: str, part: Path, show: bool) -> None:
    record = part.with_name(f"{part.name}.json")
    have, version = _size(part), _Version.read(record)
    headers = {"Accept-Encoding": "identity"}
    # Without a known version the bytes may be of another file: restart.
    if have and version and version.url == url and version.mark:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.mark}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == 416:
            # The range is empty: the part is complete, or of another file.
            if response.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                raise _TransientError("the server's file is shorter than the partial download")
        else:
            _check(response, url)
            begin, total = _extent(response)
            if begin not in (0, have):
                part.unlink()
                raise _TransientError(f"asked for byte {have}, the server sent from byte {begin}")
            write_json(record, vars(_Version.of(response, url)))
            _receive(response, part, begin, total, show)
            if total is not None and _size(part) != total:
                raise _TransientError(f"received {_size(part)} of {total} bytes")
    record.unlink(missing_ok=True)


def _check(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        raise _TransientError(
            f"the server answers {status} {response.reason}", float(wait) if wait.isdigit() else 0.0
        )
    if url.startswith("https:") and not response.url.startswith("https:"):
        raise FetchError(f"the server redirects to an address without encryption, {response.url}")
    if status not in (200, 206):
        raise FetchError(f"the server answers {status} {response.reason}")
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not url.endswith((".html", ".htm", "/")):
        raise FetchError("the server sends a web page instead, possibly a login page")


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """Return the offset of the first byte sent, and the file's length if the server states it."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match:
            return int(match[1]), None if match[2] == "*" else int(match[2])
        raise FetchError("the server sends a range without stating which")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _receive(
    response: requests.Response, part: Path, begin: int, total: int | None, show: bool
) -> None:
    done, megabytes = begin, (total or 0) // _MEGABYTE
    with (
        part.open("ab" if begin else "wb") as stream,
        Progress(megabytes, unit="megabyte", show=show and megabytes > 0) as progress,
    ):
        progress.update(begin // _MEGABYTE)
        for chunk in response.iter_content(_CHUNK):
            stream.write(chunk)
            progress.update((done + len(chunk)) // _MEGABYTE - done // _MEGABYTE)
            done += len(chunk)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
