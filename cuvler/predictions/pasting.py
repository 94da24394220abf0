"""Paste a detector's masks into the image as run-length encodings, without an array of its size."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cuvler.masks import Rle, from_bounds

_THRESHOLD = 0.5
# Between four values of the detector's mask that are all above or all below the threshold by this
# much, float32 rounding of the interpolation cannot reach it.
_MARGIN = 1e-5


def paste(mask: NDArray[np.float32], box: NDArray[np.float32], height: int, width: int) -> Rle:
    """Paste a mask within its box, as detectron2's ``paste_masks_in_image`` does.

    The mask is interpolated bilinearly at the centres of the image's pixels, and zero beyond its
    outermost values. Pixels of 0.5 or more belong to the object; the pixels differ from
    detectron2's only where float32 rounding decides on this. Where four neighbouring values
    agree nothing is interpolated, and there is no array of the image's size: 100 masks in a
    photograph of 12 megapixels take a tenth of a second.

    Args:
        mask: (S, S), probabilities at equal distances within the box.
        box: x0 y0 x1 y1, in pixels of the image; x1 > x0 and y1 > y0.
        height: of the image.
        width: of the image.
    """
    left, columns, x_weights = _positions(box[0], box[2], width, mask.shape[1])
    top, rows, y_weights = _positions(box[1], box[3], height, mask.shape[0])
    first_rows = np.searchsorted(rows, np.arange(mask.shape[0] + 2))
    outline = _compiled_outline()
    column, row = outline(np.pad(mask, 1), first_rows, y_weights, columns, x_weights)
    return from_bounds((left + column) * height + top + row, height, width)


def _positions(
    start: np.float32, end: np.float32, size: int, values: int
) -> tuple[int, NDArray[np.intp], NDArray[np.float32]]:
    """Return where the pixels in and around a box lie between the mask's values, along one axis.

    Returns:
        The first pixel; of each pixel the number of the value before it, 0 being the padding, and
        its distance to it in values, in detectron2's and torch's float32 arithmetic.
    """
    first = max(int(np.floor(start)) - 1, 0)
    last = min(int(np.ceil(end)) + 1, size)
    one, half, two = np.float32(1), np.float32(0.5), np.float32(2)
    centres = np.arange(first, last, dtype=np.float32) + half
    normalized = (centres - start) / (end - start) * two - one
    positions = ((normalized + one) * np.float32(values) - one) / two
    # Beyond the padding the mask is zero, as it is within it half a value from its end.
    before = np.floor(positions)
    inside = (before >= -1) & (before < values)
    chosen = np.flatnonzero(inside)
    skipped = int(chosen[0]) if len(chosen) else 0
    before, positions = before[chosen], positions[chosen]
    return first + skipped, before.astype(np.intp) + 1, positions - before


@cache
def _compiled_outline() -> Callable[..., tuple[NDArray[np.int64], NDArray[np.int64]]]:
    # Importing numba takes longer than everything else in this module.
    from numba import njit

    compiled: Callable[..., tuple[NDArray[np.int64], NDArray[np.int64]]] = njit(cache=True)(
        _outline
    )
    return compiled


def _outline(
    padded: NDArray[np.float32],
    first_rows: NDArray[np.intp],
    y_weights: NDArray[np.float32],
    columns: NDArray[np.intp],
    x_weights: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the column and row of the starts and ends, alternating, of runs of the mask's pixels.

    Args:
        padded: the mask's values.
        first_rows: the first row of pixels after each of the values but the last; their number.
        y_weights: of each row, the distance to the value before it.
        columns: of each column of pixels, the number of the value before it.
        x_weights: of each column, the distance to that value.
    """
    cells, height = len(first_rows) - 1, len(y_weights)
    threshold, one = np.float32(_THRESHOLD), np.float32(1)
    found = np.empty((2, 4 * (len(columns) + height + 1)), dtype=np.int64)
    count = 0
    for column in range(len(columns)):
        if count + height + 1 > found.shape[1]:
            more = np.empty((2, 2 * found.shape[1]), dtype=np.int64)
            more[:, :count] = found[:, :count]
            found = more
        x, east = columns[column], x_weights[column]
        west = one - east
        inside = False
        for y in range(cells):
            start, end = first_rows[y], first_rows[y + 1]
            if start == end:
                continue
            upper = west * padded[y, x] + east * padded[y, x + 1] - threshold
            lower = west * padded[y + 1, x] + east * padded[y + 1, x + 1] - threshold
            clear = min(abs(upper), abs(lower)) > _MARGIN and (upper > 0) == (lower > 0)
            for row in range(start, start + 1 if clear else end):
                south = y_weights[row]
                north = one - south
                value = (
                    padded[y, x] * (north * west)
                    + padded[y, x + 1] * (north * east)
                    + padded[y + 1, x] * (south * west)
                    + padded[y + 1, x + 1] * (south * east)
                )
                if (value >= threshold) != inside:
                    found[0, count], found[1, count] = column, row
                    count += 1
                    inside = not inside
        if inside:
            found[0, count], found[1, count] = column, height
            count += 1
    return found[0, :count], found[1, :count]
