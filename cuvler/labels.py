"""Placing labels near masks so that they hide neither small objects nor each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvler.masks import bounding_box

Size = tuple[int, int]  # width, height in pixels
Point = tuple[int, int]  # x, y
_WORKING_SIDE = 640  # Larger images are searched at a fraction of their size.
_MAX_HIDDEN = 0.2  # Fractions of objects under one label, summed over the objects.
_MAX_DISTANCE = 2.5  # From the mask, in heights of the label.
# Costs, in heights of the label: of hiding an object whole, of a label that is not centred on the
# point that it marks, and of marking another point than the mask's highest.
_HIDING, _OFF_CENTRE, _NOT_ABOVE = 12.0, 0.15, 0.3


@dataclass(frozen=True)
class Place:
    """Where a label goes.

    Attributes:
        left: of the label, in pixels.
        top: of the label, in pixels.
        anchor: the pixel of the mask that it marks.
    """

    left: int
    top: int
    anchor: Point

    def nearest(self, label: Size) -> Point:
        """Return the pixel of a label at this place that is nearest to the anchor."""
        x, y = self.anchor
        right, bottom = self.left + label[0] - 1, self.top + label[1] - 1
        return min(max(x, self.left), right), min(max(y, self.top), bottom)


def place_labels(
    masks: Sequence[NDArray[np.bool_]], label: Size, image: Size
) -> list[Place | None]:
    """Find a place for the label of each mask; earlier masks choose first.

    Of all places that overlap no other label, a mask takes the one with the lowest cost. It grows
    with the distance from the mask, and with the fraction of each object that is hidden: a label
    may lie on a large object and not on a small one.

    Args:
        masks: each (height, width), the size of the image.
        label: of each label.
        image: of the image.

    Returns:
        One entry a mask; None if the mask is empty or there is no room within two and a half
        heights of the label.
    """
    step = -(-max(image) // _WORKING_SIDE)
    search = _Search([_reduce(mask, step) for mask in masks], label, image, step)
    return [search.place(mask) for mask in search.masks]


def _reduce(mask: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Return every ``step``-th pixel of a mask; at least one if it is not empty."""
    reduced = mask[::step, ::step]
    left, top, right, bottom = (0, 0, 0, 0) if reduced.any() else bounding_box(mask)
    if right:
        reduced = reduced.copy()
        reduced[(top + bottom) // 2 // step, (left + right) // 2 // step] = True
    return reduced


class _Search:
    """All places of a label in an image that is reduced by ``step``."""

    def __init__(
        self, masks: Sequence[NDArray[np.bool_]], label: Size, image: Size, step: int
    ) -> None:
        self.masks = masks
        self._step = step
        self._width, self._height = (-(-side // step) for side in label)
        width, height = (-(-side // step) for side in image)
        stride = max(1, self._height // 3)
        lefts, tops = (
            np.unique(np.append(np.arange(0, room, stride), room))
            for room in (max(width - self._width, 0), max(height - self._height, 0))
        )
        self._lefts, self._tops = (part.ravel() for part in np.meshgrid(lefts, tops, indexing="xy"))
        self._hidden = self._hidden_fractions(height, width)
        self._free = self._hidden <= _MAX_HIDDEN

    def _hidden_fractions(self, height: int, width: int) -> NDArray[np.float64]:
        """Return, for each place, the sum over the objects of the fraction that it hides."""
        density = np.zeros((height + 1, width + 1))
        for mask in self.masks:
            if area := np.count_nonzero(mask):
                density[1:, 1:][mask] += 1 / area
        sums = density.cumsum(axis=0).cumsum(axis=1)
        rights = np.minimum(self._lefts + self._width, width)
        bottoms = np.minimum(self._tops + self._height, height)
        corners = sums[bottoms, rights] + sums[self._tops, self._lefts]
        hidden: NDArray[np.float64] = (
            corners - sums[self._tops, rights] - sums[bottoms, self._lefts]
        )
        return hidden

    def place(self, mask: NDArray[np.bool_]) -> Place | None:
        """Take the best place for a mask."""
        anchors = list(_anchors(mask))
        if not anchors:
            return None
        distances = np.stack([self._distances(anchor) for anchor in anchors])
        distances[1:] += _NOT_ABOVE
        costs = distances.min(axis=0) + _HIDING * self._hidden
        costs[~self._free | (distances.min(axis=0) > _MAX_DISTANCE)] = np.inf
        best = int(costs.argmin())
        if np.isinf(costs[best]):
            return None
        self._take(best)
        x, y = anchors[int(distances[:, best].argmin())]
        step = self._step
        return Place(
            int(self._lefts[best]) * step, int(self._tops[best]) * step, (x * step, y * step)
        )

    def _distances(self, anchor: Point) -> NDArray[np.float64]:
        """Return the distance of each place from a point, in heights of the label."""
        across = self._lefts + (self._width - 1) / 2 - anchor[0]
        down = self._tops + (self._height - 1) / 2 - anchor[1]
        sideways = np.maximum(np.abs(across) - self._width / 2, 0)
        vertical = np.maximum(np.abs(down) - self._height / 2, 0)
        apart = np.hypot(sideways, vertical) + _OFF_CENTRE * np.hypot(across, down)
        distances: NDArray[np.float64] = apart / self._height
        return distances

    def _take(self, place: int) -> None:
        across = np.abs(self._lefts - self._lefts[place])
        down = np.abs(self._tops - self._tops[place])
        self._free &= (across >= self._width + 1) | (down >= self._height + 1)


def _anchors(mask: NDArray[np.bool_]) -> Iterator[Point]:
    """Yield the highest, lowest, leftmost and rightmost pixel of a mask; none if it is empty."""
    left, top, right, bottom = bounding_box(mask)
    if right == 0:
        return
    for row in (top, bottom - 1):
        yield int(np.median(np.flatnonzero(mask[row]))), row
    for column in (left, right - 1):
        yield column, int(np.median(np.flatnonzero(mask[:, column])))
