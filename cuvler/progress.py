"""Progress of a stage: a bar on a terminal, a line per minute in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
_Item = TypeVar("_Item")

_PERIOD = 60.0  # seconds between two log lines


def duration(seconds: float) -> str:
    """Format a time in its two largest units: 3.4 s, 2 min 5 s, 1 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


class Progress:
    """Counts finished items; a context manager.

    A log line has the form ``120 of 4000 images, 3.1 a second, 20 min 52 s left``, which
    ``cuvler status`` parses. There is at most one per minute, and a last one at the end of a
    stage that has logged before.

    Args:
        total: number of items.
        unit: name of an item, in the singular.
        show: False shows nothing; for all but one of several processes.
    """

    def __init__(self, total: int, *, unit: str = "image", show: bool = True) -> None:
        self._total = total
        self._unit = unit
        self._done = 0
        self._start = self._logged = time.monotonic()
        terminal = sys.stderr.isatty()
        self._lines = show and not terminal
        self._bar = tqdm(total=total, unit=unit, disable=not (show and terminal))

    def update(self, count: int = 1) -> None:
        """Add ``count`` finished items."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        due = now - self._logged >= _PERIOD
        finished = self._done >= self._total and self._logged > self._start
        if self._lines and (due or finished):
            self._logged = now
            logger.info("%s", self._line(now - self._start))

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds
        left = duration((self._total - self._done) / rate)
        return f"{self._done} of {self._total} {self._unit}s, {rate:.3g} a second, {left} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


def with_progress(items: Iterable[_Item], total: int, *, unit: str = "image") -> Iterator[_Item]:
    """Yield items and show progress; see :class:`Progress`."""
    with Progress(total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()
