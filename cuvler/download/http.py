"""HTTP downloads that go on where they broke off (RFC 9110, sections 13 and 14)."""

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

_CHUNK = 1 << 16  # bytes; what of one has come when a connection breaks is lost
_MEGABYTE = 10**6
_TIMEOUT = (20, 60)  # seconds to connect, and between two pieces
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that a later attempt may not have


class _PassingError(Exception):
    """What another attempt may mend; after ``wait`` seconds, where the server says so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Version:
    """What tells one version of a file from the next: its address and the server's mark."""

    url: str
    mark: str

    @classmethod
    def of(cls, response: requests.Response, url: str) -> "_Version":
        mark = response.headers.get("ETag", "")
        # A weak tag stands for many versions of the bytes; it is of no use for a range.
        if not mark or mark.startswith("W/"):
            mark = response.headers.get("Last-Modified", "")
        return cls(url, mark)

    @classmethod
    def read(cls, path: Path) -> "_Version | None":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(content["url"], content["mark"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # without it the download begins anew


def fetch_http(
    url: str, part: Path, *, attempts: int = 5, pause: float = 1.0, show: bool = True
) -> None:
    """Download to ``part``, going on from what an earlier call left there.

    What is there is only added to if the server says that its file is still the same
    (``If-Range``); otherwise, and where a server ignores ranges, the download begins anew.

    Args:
        url: ``http`` or ``https``.
        part: the file to write; ``part.json`` beside it remembers which version it is of.
        attempts: how many may fail one after the other without a byte gained.
        pause: seconds after the first failure; doubled after each further one.
        show: show progress.

    Raises:
        FetchError: the server has no such file, or all attempts failed. What came is kept.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, show)
            return
        except (requests.ConnectionError, requests.Timeout, _PassingError) as error:
            reason: Exception = error
        except requests.exceptions.ChunkedEncodingError as error:
            reason = error
        except requests.RequestException as error:
            raise FetchError(f"{error}") from error
        failures = 1 if _size(part) > before else failures + 1
        if failures >= attempts:
            raise FetchError(f"{reason}, after {attempts} attempts") from reason
        wait = max(pause * 2 ** (failures - 1), getattr(reason, "wait", 0.0))
        logger.info("%s: %s; another attempt in %g s", url, reason, wait)
        time.sleep(wait)


def _attempt(url: str, part: Path, show: bool) -> None:
    memory = part.with_name(f"{part.name}.json")
    have, version = _size(part), _Version.read(memory)
    headers = {"Accept-Encoding": "identity"}
    # Bytes of an unknown version may be of another file: better to begin anew.
    if have and version and version.url == url and version.mark:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.mark}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == 416:
            # There is nothing beyond what is here; that is all of it, or another file.
            if response.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                raise _PassingError("the server has less than what was here")
        else:
            _check(response, url)
            begin, total = _extent(response)
            if begin not in (0, have):
                part.unlink()
                raise _PassingError(f"asked for byte {have}, the server sent from byte {begin}")
            write_json(memory, vars(_Version.of(response, url)))
            _receive(response, part, begin, total, show)
            if total is not None and _size(part) != total:
                raise _PassingError(f"{_size(part)} of {total} bytes came")
    memory.unlink(missing_ok=True)


def _check(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in _PASSING:
        wait = response.headers.get("Retry-After", "")
        raise _PassingError(
            f"the server says {status} {response.reason}", float(wait) if wait.isdigit() else 0.0
        )
    if status not in (200, 206):
        raise FetchError(f"the server says {status} {response.reason}")
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not url.endswith((".html", ".htm", "/")):
        raise FetchError("the server sends a web page instead, perhaps to log in")


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """Give the first byte that comes, and the whole file's length where it is said."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match:
            return int(match[1]), None if match[2] == "*" else int(match[2])
        raise FetchError("the server sends a part and does not say which")
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
