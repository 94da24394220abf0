"""Binary masks as COCO run-length encodings (RLE)."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


class Rle(TypedDict):
    """COCO's compressed run-length encoding, with ``counts`` as str for JSON."""

    size: list[int]
    counts: str


def encode(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask of shape (height, width), bool or 0/1.

    The result equals pycocotools' byte for byte. Only the mask's box is scanned, which is about
    three times as fast for a detector's 100 masks of a photograph.
    """
    height, width = (int(side) for side in mask.shape)
    bounds = _run_bounds(np.asarray(mask, dtype=bool))
    counts = np.diff(bounds, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    runs = {"size": [height, width], "counts": counts.tolist()}
    rle = coco_mask.frPyObjects(runs, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _run_bounds(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the starts and ends of runs of ones, alternating, in column-major order."""
    left, top, right, bottom = bounding_box(mask)
    if right == 0:
        return np.empty(0, dtype=np.intp)
    # The box in column-major order, with a zero after each column so that every run ends there.
    box = np.zeros((right - left, bottom - top + 1), dtype=bool)
    box[:, :-1] = mask[top:bottom, left:right].T
    pixels = np.concatenate(([False], box.ravel()))
    column, row = np.divmod(np.flatnonzero(pixels[1:] != pixels[:-1]), box.shape[1])
    bounds: NDArray[np.intp] = (left + column) * mask.shape[0] + top + row
    # If the box is as high as the mask, a run may continue at the top of the next column.
    apart = np.repeat(bounds[1:-1:2] != bounds[2::2], 2)
    return np.concatenate((bounds[:1], bounds[1:-1][apart], bounds[-1:]))


def decode(rle: Rle) -> NDArray[np.bool_]:
    """Decode RLE to a bool array of shape (height, width)."""
    decoded: NDArray[np.bool_] = coco_mask.decode(rle).astype(bool)
    return decoded


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks of equal shape; 0 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return x0 y0 x1 y1 of a (height, width) mask, the last two exclusive; zeros if empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return 0, 0, 0, 0
    left, right = int(columns[0]), int(columns[-1]) + 1
    # Only these columns: numpy is slow at reducing rows.
    rows = np.flatnonzero(mask[:, left:right].any(axis=1))
    return left, int(rows[0]), right, int(rows[-1]) + 1


def geometry(rle: Rle) -> dict[str, Any]:
    """Return COCO's ``bbox`` ([x, y, width, height]) and ``area``, in pixels."""
    return {
        "bbox": [float(value) for value in coco_mask.toBbox(rle)],
        "area": int(coco_mask.area(rle)),
    }


def run_sums(counts: str) -> tuple[int, int] | None:
    """Check compressed RLE and compute its sums without decoding it.

    Args:
        counts: COCO's compressed encoding, six bits a character.

    Returns:
        The number of pixels of all runs (the mask's height times its width) and of the mask's
        foreground; None if ``counts`` is not valid.
    """
    try:
        text = np.frombuffer(counts.encode("ascii"), dtype=np.uint8)
    except UnicodeEncodeError:
        return None
    total, foreground = _compiled_sums()(text)
    return (total, foreground) if total >= 0 else None


@cache
def _compiled_sums() -> Callable[[NDArray[np.uint8]], tuple[int, int]]:
    # Importing numba takes three times as long as everything else in this module.
    from numba import njit

    compiled: Callable[[NDArray[np.uint8]], tuple[int, int]] = njit(cache=True)(_sums)
    return compiled


def _sums(text: NDArray[np.uint8]) -> tuple[int, int]:
    total = foreground = 0
    previous = last = 0  # From the third run on, a run is coded as its difference to run - 2.
    number = position = 0
    while position < len(text):
        run = shift = 0
        more = True
        while more:
            if position == len(text) or text[position] < 48 or text[position] > 111 or shift > 30:
                return -1, 0
            bits = int(np.int64(text[position])) - 48
            run |= (bits & 31) << shift
            shift += 5
            more = bits & 32 != 0
            if not more and bits & 16:
                run |= -1 << shift
            position += 1
        if number > 2:
            run += previous
        if run < 0:
            return -1, 0
        total += run
        if number % 2:
            foreground += run
        previous, last = last, run
        number += 1
    return total, foreground
