"""The rules of single values in COCO records: numbers, ids, flags, boxes and names."""

import math
import re
import reprlib
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from cuvler.errors import DataError

Size = tuple[int, int]
Box = tuple[float, float, float, float]

INT64 = 2**63 - 1
LARGEST = sys.float_info.max
_EXACT = 2**53  # floats up to here are exact whole numbers
_PIXELS = 2**31  # of a whole image; COCO's run lengths are 32 bits
_UNKNOWN_FAR = 1e6  # pixels; where the image's size is unknown
_NAME, _PATH = 255, 4096  # bytes; what file systems allow
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
_NUMBERS = {int, float}
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")

_repr = reprlib.Repr()
_repr.maxlevel = 3
_repr.maxstring = _repr.maxother = 60


class Refused(DataError):  # noqa: N818
    """A record breaks a rule; the message has key, value and what is allowed, but not the file."""


def shown(value: Any) -> str:
    """Return a value for a message, shortened."""
    text = _repr.repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def refused(key: str, value: Any, allowed: str) -> Refused:
    """Return the error for a value that is not allowed."""
    return Refused(f"{key!r} must be {allowed}, not {shown(value)}")


def missing(key: str, allowed: str) -> Refused:
    """Return the error for a key that is not there."""
    return Refused(f"{key!r} is missing; it must be {allowed}")


def whole(key: str, value: Any) -> int:
    """Convert an id or a length, also if written as text or with a decimal point.

    Raises:
        Refused: it is not a whole number within int64.
    """
    allowed = "a whole number of at most 64 bits"
    number: int | None = None
    text = isinstance(value, str) and _WHOLE.fullmatch(value.strip())
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT
    if _is_number(value, Integral) or text or exact:
        number = int(value)
    if number is None or not -INT64 - 1 <= number <= INT64:
        raise refused(key, value, allowed)
    return number


def finite(key: str, value: Any, *, low: float = -LARGEST, high: float = LARGEST) -> float:
    """Check a number.

    Raises:
        Refused: it is not a finite number from ``low`` to ``high``.
    """
    if _is_number(value, Real) and low <= value <= high:
        return float(value)
    limits = "" if low == -LARGEST else f" from {low:g} to {high:g}"
    if low == 0 and high == LARGEST:
        limits = " of 0 or more"
    number = "finite number" if high == LARGEST else "number"
    raise refused(key, value, f"a {number}{limits}{_unquoted(value)}")


def _is_number(value: Any, kind: type[Integral | Real]) -> bool:
    """Return whether a value is a number, Python's or numpy's, but not true or false."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _unquoted(value: Any) -> str:
    return ", without quotes" if isinstance(value, str) else ""


def flag(key: str, value: Any) -> bool:
    """Convert ``iscrowd`` or ``ignore``, also if written as text.

    Raises:
        Refused: it is neither 0 nor 1, true nor false.
    """
    found = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
    if isinstance(value, int | float) and value in (0, 1):
        found = bool(value)
    if found is None:
        raise refused(key, value, "0 or 1 (or missing, which is 0)")
    return found


def far(size: Size | None) -> float:
    """Return the largest distance, in pixels, of coordinates from an image's upper left corner."""
    return 4.0 * (size[0] + size[1]) if size else _UNKNOWN_FAR


def box(value: Any, size: Size | None) -> Box:
    """Check a box: x, y, width and height in pixels.

    Raises:
        Refused: it is not four finite numbers, has a negative side or is far outside the image.
    """
    allowed = "four finite numbers, [x, y, width, height], with sides of 0 or more"
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise refused("bbox", value, allowed)
    x, y, width, height = value
    if {*map(type, value)} <= _NUMBERS and width >= 0 <= height:
        try:
            # Not less than the largest of the four, and NaN if one is.
            if math.hypot(x, y, width, height) <= far(size):
                return x, y, width, height
        except OverflowError:
            raise refused("bbox", value, allowed) from None
    return _uncommon_box(value, size, allowed)


def _uncommon_box(value: Any, size: Size | None, allowed: str) -> Box:
    if not all(_is_number(side, Real) for side in value):
        text = any(isinstance(side, str) for side in value)
        raise refused("bbox", value, allowed + (", without quotes" if text else ""))
    x, y, width, height = map(float, value)
    if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) < 0:
        raise refused("bbox", value, allowed)
    if max(abs(x), abs(y), width, height) > far(size):
        raise refused("bbox", value, f"near its image of {pixels(size)}")
    return x, y, width, height


def pixels(size: Size | None) -> str:
    """Return an image's size for a message."""
    return f"{size[0]} x {size[1]} pixels" if size else "unknown size"


def image_size(image: Mapping[str, Any]) -> Size | None:
    """Check and return an image's (width, height); None if both are missing or null.

    Raises:
        Refused: they are not whole numbers of 1 or more, or too large for an image.
    """
    sides: list[Any] = [image.get(key) for key in ("width", "height")]
    if sides == [None, None]:
        return None
    for key, side in zip(("width", "height"), sides, strict=True):
        if not _is_number(side, Real) or not 1 <= side < _PIXELS:
            raise refused(key, side, f"a whole number of pixels, 1 or more{_unquoted(side)}")
        if side != int(side):
            raise refused(key, side, "a whole number of pixels")
    width, height = map(int, sides)
    if width * height >= _PIXELS:
        raise Refused(f"'width' and 'height' are {width} and {height}: too large for an image")
    return width, height


def is_text(value: Any) -> bool:
    """Return whether a value is text that UTF-8 can hold: without half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_name(value: Any, key: str = "file_name") -> str:
    """Check the name of an image file, or of a folder.

    Raises:
        Refused: it is empty, not text, or no name that a file can have.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise refused(key, value, "the name of a file")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        raise refused(key, value, "the name of a file, in UTF-8") from None
    if (len(encoded) > _NAME and max(map(len, encoded.split(b"/"))) > _NAME) or len(
        encoded
    ) > _PATH:
        raise refused(key, value, f"the name of a file, of at most {_NAME} bytes")
    return value
