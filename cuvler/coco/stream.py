"""Reading a JSON file of COCO's formats one record at a time.

Results and pseudo-masks of ImageNet do not fit into memory. The reader is not ijson because it
returns the records of all sections in one pass, at more than 100 MB/s, where ijson's events give
37 MB/s and two passes of ``ijson.items`` 82 MB/s.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from io import BufferedReader
from typing import Any, BinaryIO, Final

from cuvler.coco.values import shown
from cuvler.errors import DataError
from cuvler.files import StrPath
from cuvler.json_text import Utf8Decoder

_CHUNK = 1 << 22  # bytes
_LONGEST = 16 * _CHUNK  # a longer record is taken for a damaged file
_SPACE = " \t\n\r"  # of JSON
_LISTS = ("images", "annotations", "categories")
_AGAIN = "; delete the file and run again to recreate it"


class Opened(Enum):
    """The type of :data:`OPENED`."""

    OPENED = 0


OPENED: Final = Opened.OPENED
"""Precedes a section's records, so that an empty section differs from a missing one."""

RESULTS: Final = ""
"""The section of the records of COCO results, a list without sections."""


def stream_file(path: StrPath, *, made_here: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield (section, record) pairs of a COCO json in the file's order.

    A section (``images``, ``excluded``...) starts with :data:`OPENED`. One that is not a list
    (``info``) is one record. The records of COCO results have the section :data:`RESULTS`.

    Args:
        path: the file.
        made_here: whether the file is a stage's output, to be made again if it is damaged. A file
            with the ``info`` of a stage is recognised without that.

    Raises:
        DataError: the file is missing, truncated, of another encoding, or neither an object nor a
            list; or ``images``, ``annotations`` or ``categories`` is not a list.
    """
    with open_coco(path) as stream:
        reader = _Reader(stream)
        try:
            if (first := reader.peek()) not in ("[", "{"):
                found = f"starts with {first!r}" if first else "is empty"
                raise ValueError(f"it {found}; it must start with {{ or [")
            if first == "[":
                yield RESULTS, OPENED
                for record in reader.items():
                    yield RESULTS, record
            else:
                opened = set()
                for section in reader.members():
                    if section in opened:
                        raise reader.invalid(f"{section!r} is there twice")
                    opened.add(section)
                    yield section, OPENED
                    if reader.peek() == "[":
                        for record in reader.items():
                            yield section, record
                    else:
                        value = reader.value()
                        require_list(section, value)
                        made_here = made_here or (section == "info" and is_ours(value))
                        yield section, value
            if reader.peek():
                raise reader.invalid("extra data after the end")
        except RecursionError:
            raise DataError(f"{path}: not valid COCO json (nested too deeply)") from None
        except ValueError as error:
            again = _AGAIN if made_here else ""
            raise DataError(f"{path}: not valid COCO json ({error}){again}") from error


def stream_content(content: Any) -> Iterator[tuple[str, Any]]:
    """Return the same as :func:`stream_file` of a loaded json.

    Raises:
        ValueError: it is neither an object nor a list, or a section must be a list and is not.
    """
    if isinstance(content, list):
        content = {RESULTS: content}
    if not isinstance(content, Mapping):
        raise ValueError(f"{shown(content)} is neither an object nor a list")
    for section, value in content.items():
        if not isinstance(value, list):
            require_list(section, value)
    return _pairs(content)


def _pairs(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, value in content.items():
        yield section, OPENED
        for record in value if isinstance(value, list) else [value]:
            yield section, record


def require_list(section: str, value: Any) -> None:
    """Check a section that is not a list.

    Raises:
        ValueError: it is one of those that must be lists.
    """
    if section in _LISTS:
        raise ValueError(f"{section!r} must be a list of records, not {shown(value)}")


def is_ours(info: Any) -> bool:
    """Return whether ``info`` is what a stage of this program writes."""
    if not isinstance(info, dict):
        return False
    return {"method", "backbones"} <= info.keys() or {"made_from", "format"} <= info.keys()


def _at_once(path: str, flags: int) -> int:
    """Open a file; opening a pipe does not wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def open_coco(path: StrPath) -> Iterator[BufferedReader]:
    """Open a file.

    Raises:
        DataError: it is missing, cannot be read, or is a pipe.
    """
    try:
        stream = open(path, "rb", opener=_at_once)  # noqa: SIM115
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    with stream:
        # Pipes can be read only once, and some commands read a file twice.
        if not stream.seekable():
            raise DataError(f"{path}: a pipe, not a file; write its content to a file first")
        yield stream


class _Reader:
    """An incremental JSON reader that buffers little more than the current value."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._text = Utf8Decoder()
        self._scan: Callable[[str, int], tuple[Any, int]]
        self._scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
        self._buffer = ""
        self._position = 0
        self._before = 0  # characters before the buffer
        self._started = self._ended = False

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        while True:
            character = self._buffer[self._position : self._position + 1]
            if not character:
                if not self._read_chunk():
                    return ""
            elif character in _SPACE:
                self._position += 1
            else:
                return character

    def value(self) -> Any:
        """Read one value."""
        self.peek()
        try:
            value, end = self._scan(self._buffer, self._position)
        except (ValueError, StopIteration):
            return self._split_value()
        if end == len(self._buffer):
            return self._split_value()
        self._position = end
        return value

    def _split_value(self) -> Any:
        """Read a value that may continue in the next chunk; without one it must be whole.

        That may also be so for a number at the end of the buffer.
        """
        while self._read_chunk():
            with suppress(ValueError, StopIteration):
                value, end = self._scan(self._buffer, self._position)
                if end < len(self._buffer):
                    self._position = end
                    return value
        try:
            value, self._position = self._scan(self._buffer, self._position)
        except StopIteration:
            raise self._unexpected("a value") from None
        except ValueError as error:
            # Python's own error for a number of thousands of digits is about a setting of Python.
            reason = str(getattr(error, "msg", "a number has too many digits"))
            if len(self._buffer) - self._position >= _LONGEST:
                reason = f"a record is longer than {_LONGEST >> 20} MiB"
            raise self.invalid(reason.removesuffix(" starting at").removesuffix(" at")) from error
        return value

    def items(self) -> Iterator[Any]:
        """Yield the items of a list."""
        self._expect("[")
        found = self.peek()
        if found != "]":
            while True:
                yield self.value()
                found = self.peek()
                if found != ",":
                    break
                self._position += 1
        self._expect("]")

    def members(self) -> Iterator[str]:
        """Yield the keys of an object; the caller reads each value before the next key."""
        self._expect("{")
        if self.peek() != "}":
            yield self._key()
            while self.peek() == ",":
                self._position += 1
                yield self._key()
        self._expect("}")

    def _key(self) -> str:
        if self.peek() != '"':
            raise self._unexpected("a key")
        key = str(self.value())
        self._expect(":")
        return key

    def invalid(self, reason: str) -> ValueError:
        """Return an error with the position in the file."""
        return ValueError(f"{reason}, at character {self._before + self._position}")

    def _unexpected(self, expected: str) -> ValueError:
        found = repr(self.peek()) if self.peek() else "the end"
        return self.invalid(f"expected {expected}, found {found}")

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise self._unexpected(repr(character))
        self._position += 1

    def _read_chunk(self) -> bool:
        rest = self._buffer[self._position :]
        if self._ended or len(rest) >= _LONGEST:
            return False
        # The encoding is known from the first few bytes.
        chunk = self._stream.read(_CHUNK if self._started else max(_CHUNK, 8))
        self._started = True
        self._ended = not chunk
        more = self._text.decode(chunk, final=self._ended)
        self._before += self._position
        self._buffer, self._position = rest + more, 0
        # A chunk may be less than a character.
        return not self._ended
