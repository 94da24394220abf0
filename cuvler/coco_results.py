"""Detections in COCO's results format, read one by one: such files outgrow the memory."""

import json
import math
import os
from collections.abc import Iterator
from typing import Any, TextIO

from cuvler.errors import DataError

_CHUNK = 1 << 22  # characters
_LONGEST = 16 * _CHUNK  # no record is longer; what seems to be is broken


def is_finite(value: object) -> bool:
    """Whether a value read from JSON is a number other than NaN and infinity."""
    return isinstance(value, int | float) and math.isfinite(value)


def stream_results(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a COCO results file, a JSON list of objects, in the file's order.

    Raises:
        DataError: the file is missing, not a list of objects, or not whole.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            yield from _records(stream)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValueError as error:
        raise DataError(
            f"{path}: not whole COCO results ({error}); delete the file and run again"
        ) from error


def _records(stream: TextIO) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    buffer = stream.read(_CHUNK).lstrip()
    if not buffer.startswith("["):
        raise ValueError("it is not a list")
    position, separator = 1, ""
    while True:
        position = _skip_space(buffer, position)
        if buffer.startswith("]", position):
            if (buffer[position + 1 :] + stream.read()).strip():
                raise ValueError("something follows the list")
            return
        try:
            if separator and not buffer.startswith(separator, position):
                raise ValueError(f"no comma before {buffer[position : position + 20]!r}")
            start = _skip_space(buffer, position + len(separator))
            record, position = decoder.raw_decode(buffer, start)
        except ValueError:
            # Perhaps the record goes on in the next chunk; if there is none, it is broken.
            more = stream.read(_CHUNK) if len(buffer) - position < _LONGEST else ""
            if not more:
                raise
            buffer, position = buffer[position:] + more, 0
            continue
        if not isinstance(record, dict):
            raise ValueError(f"{record!r} is not an object")
        separator = ","
        yield record


def _skip_space(buffer: str, position: int) -> int:
    while buffer[position : position + 1].isspace():
        position += 1
    return position
