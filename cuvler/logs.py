"""Log lines, and text that is safe to print: a file name may hold anything but a slash and zero."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

FORMAT = "%(asctime)s %(levelname)s %(message)s"
# Control characters (line breaks and escape sequences of terminals are made of them), line and
# paragraph separators, marks that reverse the direction of what follows, and undecodable bytes.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text with control characters escaped, as ``\n`` or ``\x1b``.

    Args:
        text: printed as ``str`` does.
        lines: keep line breaks and tabs, for text of several lines.
    """

    def escaped(match: re.Match[str]) -> str:
        found = match[0]
        return found if lines and found in "\n\t" else repr(found)[1:-1]

    return _UNPRINTABLE.sub(escaped, str(text))


def printable_list(names: Iterable[object], *, most: int = 20) -> str:
    """Return the first names, separated by commas, and the number of those left out."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(map(printable, every[:most])) + more


class Formatter(logging.Formatter):
    """Formats records with control characters escaped: in arguments all, in messages all but lines.

    A file name with a line break would otherwise look like two records.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        if isinstance(record.args, tuple):
            record = logging.makeLogRecord(vars(record))
            record.args = tuple(map(_escaped, record.args or ()))
        return printable(super().format(record), lines=True)


def _escaped(argument: object) -> object:
    is_text = isinstance(argument, str | os.PathLike | BaseException)
    return printable(argument) if is_text else argument


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Log warnings and errors only, of the package of this name; for what is called many times."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def configure(level: int = logging.INFO, *, date_format: str | None = None) -> None:
    """Log to standard error, unless the process logs already."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(FORMAT, date_format))
    logging.basicConfig(level=level, handlers=[handler])
