"""Outlines of masks along the borders of their pixels.

Corners are whole numbers, so that pycocotools' rasteriser returns the same pixels. Contours through
the centres of pixels, as OpenCV's, lose half a pixel all around.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cuvler.masks import bounding_box

Ring = NDArray[Any]  # (points, 2): x, y in pixels, whole numbers or not


@dataclass(frozen=True)
class Piece:
    """A connected part of a mask; parts that touch only at corners are separate pieces.

    Attributes:
        outer: its border, clockwise on the screen.
        holes: the borders of its holes, anticlockwise.
    """

    outer: Ring
    holes: list[Ring]


def pieces(mask: NDArray[np.bool_]) -> list[Piece]:
    """Return the pieces of a (height, width) mask from top to bottom; none if it is empty."""
    left, top, right, bottom = bounding_box(mask)
    if right == 0:
        return []
    padded = np.pad(mask[top:bottom, left:right], 1)
    rings = _rings(padded)
    labels = ndimage.label(padded)[0] if len(rings) > 1 else padded
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for ring in rings:
        # The first corner is the ring's highest, and of these the leftmost: the pixel below it and
        # to the right is of the piece, or of a hole with the piece above.
        x, y = ring[0]
        points = ring + np.array([left - 1, top - 1])
        if label := int(labels[y, x]):
            outer[label] = points
        else:
            holes.setdefault(int(labels[y - 1, x]), []).append(points[::-1])
    return [Piece(ring, holes.get(label, [])) for label, ring in outer.items()]


def _rings(padded: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Return all borders, each from its first corner to the right, in the order of these."""
    x, y, by_column = _corners(padded)
    # In each row, corners are the ends of horizontal lines in turn; in each column, of vertical
    # ones.
    place = np.empty_like(by_column)
    place[by_column] = np.arange(len(by_column))
    vertical = by_column[place ^ 1].tolist()
    points = np.stack([x, y], axis=1)
    done = bytearray(len(vertical))
    rings = []
    for start in range(len(vertical)):
        if done[start]:
            continue
        ring, corner = [], start
        while not done[corner]:
            across = corner ^ 1
            done[corner] = done[across] = 1
            ring += [corner, across]
            corner = vertical[across]
        rings.append(points[ring])
    return rings


def _corners(
    padded: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return x and y of all corners by row, and their order by column.

    A point at which two pixels touch by their corners is two corners.
    """
    one, two, three, four = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    falling = one & four & ~two & ~three
    rising = two & three & ~one & ~four
    touching = falling | rising
    y, x = np.nonzero((one ^ two ^ three ^ four) | touching)
    twice = touching[y, x]
    second = np.repeat(np.arange(len(x)), 1 + twice)
    is_second = np.append(False, second[1:] == second[:-1])
    x, y = x[second], y[second]
    # The first of two corners in a row ends the line on the left, and the second starts the one on
    # the right; in a column above and below. One pixel's corner is left and above, or left and
    # below.
    rank = is_second ^ rising[y, x]
    # Padding has moved pixels by one: the point (x, y) is the corner above and left of (x+1, y+1).
    return x + 1, y + 1, np.lexsort((rank, y, x))


def inset(ring: Ring, distance: float) -> Ring:
    """Return a border of :func:`pieces` moved into its piece, each line by ``distance`` pixels."""
    ahead = np.roll(ring, -1, axis=0) - ring
    moved = ring.astype(float)
    # Lines to the right have the piece below them, and lines downwards to their left.
    moved[::2, 1] += distance * np.sign(ahead[::2, 0])
    moved[1::2, 1] = moved[::2, 1]
    moved[1::2, 0] -= distance * np.sign(ahead[1::2, 1])
    moved[::2, 0] = np.roll(moved[1::2, 0], 1)
    return moved


def one_ring(parts: Sequence[Ring]) -> Ring:
    """Return one ring of several, with a bridge from each to the nearest of those before it.

    A bridge is a line that is passed once in each direction, and has no area.

    Args:
        parts: a piece's outer border and its holes, or whole pieces.
    """
    ring = parts[0]
    for part in parts[1:]:
        distances = np.abs(ring[:, None] - part[None]).sum(axis=2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        around = np.concatenate([part[there:], part[: there + 1]])
        ring = np.concatenate([ring[: here + 1], around, ring[here:]])
    return ring


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Return a mask as COCO's polygons: one a piece, with its holes on bridges."""
    return [one_ring([piece.outer, *piece.holes]).ravel().tolist() for piece in pieces(mask)]
