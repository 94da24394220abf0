"""The rules of ``segmentation``, and masks from it.

COCO's formats are polygons (a list of [x, y, x, y, ...] each), and run-length encoding (RLE) with
``size`` and ``counts``, compressed to text or not.
"""

import ast
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from pycocotools import mask as coco_mask

from cuvler.coco.values import INT64, Box, Refused, Size, far, pixels, refused, shown
from cuvler.masks import Rle, run_sums

_POINTS = 6  # numbers of a triangle
_ALLOWED = "polygons, or run-length encoding with 'size' and 'counts'"
Polygons = list[list[float]]


class Segmentation(NamedTuple):
    """A checked segmentation.

    Attributes:
        value: polygons, compressed or uncompressed RLE, in COCO's form.
        pixels: number of the mask's pixels; None for polygons.
        change: what was changed to bring it to this form; empty if nothing.
    """

    value: Any
    pixels: int | None
    change: str = ""


def check_segmentation(value: Any, size: Size | None) -> Segmentation:
    """Check a segmentation against its image.

    Args:
        value: what the record has, other than null and [].
        size: (width, height) of the image; None if unknown.

    Raises:
        Refused: it has another form, its runs do not fill the image, a coordinate is not finite
            or far outside the image, or no polygon has three points.
    """
    if type(value) is dict or isinstance(value, Mapping):
        return _check_rle(value, size)
    if not isinstance(value, list | tuple) or not value:
        raise refused("segmentation", value, _ALLOWED)
    if isinstance(value[0], dict):
        if len(value) != 1:
            raise refused("segmentation", value, "a single run-length encoding, not several")
        return _check_rle(value[0], size)._replace(change="RLE in a list")
    if isinstance(value[0], list | tuple):
        return _check_polygons(value, size)
    return _check_polygons([value], size)._replace(change="a polygon without a list around it")


def _check_polygons(value: Any, size: Size | None) -> Segmentation:
    limit = far(size)
    short = False
    for polygon in value:
        if not isinstance(polygon, list | tuple):
            raise refused("segmentation", value, _ALLOWED)
        count = len(polygon)
        try:
            # Not greater than the largest coordinate; quick to compute, and NaN if one is.
            near = math.hypot(*polygon) <= limit
        except (TypeError, OverflowError):
            raise refused("segmentation", value, _COORDINATES) from None
        if not near:
            _check_coordinates(polygon, size)
        if count < _POINTS:
            short = True
        elif count % 2:
            raise refused("segmentation", value, "pairs of x and y, an even count of numbers")
    if not short:
        return Segmentation(value, None)
    kept = [polygon for polygon in value if len(polygon) >= _POINTS]
    if not kept:
        raise refused("segmentation", value, "polygons of three points or more")
    return Segmentation(kept, None, "polygons of fewer than three points left out")


_SIDES = "the height and width of 'segmentation' in pixels, whole numbers"
_COORDINATES = "polygons of finite numbers"


def _check_coordinates(polygon: Any, size: Size | None) -> None:
    if not all(map(math.isfinite, polygon)):
        raise refused("segmentation", polygon, _COORDINATES)
    lowest, highest = min(polygon), max(polygon)
    if max(-lowest, highest) > far(size):
        worst = highest if highest > -lowest else lowest
        raise Refused(
            f"'segmentation' has the coordinate {shown(worst)}, far outside its image of "
            f"{pixels(size)}"
        )


def filled(counts: Any, area: int) -> int | None:
    """Return the number of a mask's pixels; None unless it is compressed RLE that fills an image.

    Args:
        counts: of the RLE.
        area: the number of the image's pixels.
    """
    sums = run_sums(counts) if type(counts) is str else None
    return None if sums is None or sums[0] != area else sums[1]


def _check_rle(value: Mapping[str, Any], size: Size | None) -> Segmentation:
    counts = value.get("counts")
    sides = value.get("size")
    if counts is None or sides is None:
        absent = "counts" if counts is None else "size"
        raise Refused(f"'segmentation' has no {absent!r}; it must be {_ALLOWED}")
    height, width = _sides(sides, size)
    change = ""
    if isinstance(counts, str):
        sums = run_sums(counts)
        if sums is None and counts.startswith(("b'", 'b"')):
            counts, change = _unquoted(counts), "counts written as bytes"
            sums = run_sums(counts)
    elif isinstance(counts, bytes):
        counts = counts.decode("latin-1")
        sums = run_sums(counts)
    else:
        sums = _sums_of_list(counts)
    if sums is None or sums[0] != height * width:
        raise Refused(
            f"'segmentation' is an invalid mask: its runs do not fill {width} x {height} pixels "
            f"(counts {shown(counts)})"
        )
    return Segmentation({"size": [height, width], "counts": counts}, sums[1], change)


def _sides(sides: Any, size: Size | None) -> tuple[int, int]:
    pair = isinstance(sides, list | tuple) and len(sides) == 2
    if not pair or not all(type(side) is int and 0 < side <= INT64 for side in sides):
        raise refused("size", sides, _SIDES)
    if size is not None and tuple(sides) != size[::-1]:
        raise Refused(
            f"'segmentation' is a mask of {list(sides)} (height, width) pixels on an image of "
            f"{list(size[::-1])}"
        )
    height, width = sides
    if height * width >= 2**31:
        raise refused("size", sides, "the size of an image; it is too large")
    return height, width


def _sums_of_list(counts: Any) -> tuple[int, int] | None:
    if not isinstance(counts, list | tuple) or not counts:
        return None
    if {*map(type, counts)} != {int} or min(counts) < 0:
        return None
    return sum(counts), sum(counts[1::2])


def _unquoted(counts: str) -> str:
    """Return the text of bytes that were written as Python shows them: b'...'."""
    try:
        return str(ast.literal_eval(counts).decode("latin-1"))
    except (ValueError, SyntaxError, AttributeError, MemoryError, RecursionError):
        return counts


def compressed(rle: Mapping[str, Any]) -> Rle:
    """Return checked RLE, compressed or not, as compressed RLE."""
    if isinstance(rle["counts"], str):
        return cast("Rle", rle)
    return _with_text(coco_mask.frPyObjects(dict(rle), *rle["size"]))


def polygons_rle(polygons: Polygons, size: Size) -> Rle:
    """Return checked polygons as compressed RLE of an image's (width, height)."""
    width, height = size
    # Lists: pycocotools reads tuples as something else.
    parts = coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width)
    return _with_text(coco_mask.merge(parts))


def box_rle(box: Box, size: Size) -> Rle:
    """Return a box as a mask in compressed RLE."""
    x, y, width, height = box
    return polygons_rle([[x, y, x + width, y, x + width, y + height, x, y + height]], size)


def _with_text(rle: Any) -> Rle:
    height, width = (int(side) for side in rle["size"])
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
