"""Copy-paste augmentation: paste objects of one training image into another.

Simple copy-paste (Ghiasi et al., CVPR 2021) as CutLER (Wang et al., CVPR 2023, section 3.4) and
CuVLER (Arica et al., CVPR 2024) use it. It runs on arrays, in the data-loading processes,
and the given generator is its only source of randomness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cuvler.masks import bounding_box

_Window = tuple[slice, slice]


@dataclass(frozen=True)
class Sample:
    """One training image and its instances.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        masks: (N, H, W) bool.
        classes: (N,) int64.
        scores: (N,) float32.
        boxes: (N, 4) float32, x0 y0 x1 y1; None for the boxes of the masks.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32] | None = None

    def select(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> "Sample":
        """Return a sample of the chosen instances, given by their indices or (N,) bool."""
        return Sample(
            self.image,
            self.masks[chosen],
            self.classes[chosen],
            self.scores[chosen],
            None if self.boxes is None else self.boxes[chosen],
        )


def bounding_boxes(masks: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the (N, 4) boxes of (N, H, W) masks; see :func:`cuvler.masks.bounding_box`."""
    return np.array([bounding_box(mask) for mask in masks], dtype=np.intp).reshape(-1, 4)


def copy_paste_batch(
    samples: Sequence[Sample],
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    random_count: bool,
    max_cover: float,
) -> list[Sample]:
    """Paste into each sample of a batch instances of its partner in the reversed batch.

    Partners are used as they were before any pasting. See :func:`copy_paste`.
    """
    return [
        copy_paste(target, source, rng, scale=scale, random_count=random_count, max_cover=max_cover)
        for target, source in zip(samples, reversed(samples), strict=True)
    ]


def copy_paste(
    target: Sample,
    source: Sample,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    random_count: bool,
    max_cover: float,
) -> Sample:
    """Paste instances of ``source`` at a random place of ``target``; see :func:`paste`.

    If ``random_count``, 1 to n - 1 of the n instances are pasted (one if n is 1), otherwise all.
    The resize factor is drawn uniformly from ``scale``, a range within 0 and 1.
    """
    count = len(source.classes)
    if count == 0:
        return target
    if random_count:
        count = int(rng.integers(1, max(count, 2)))
    chosen = np.sort(rng.permutation(len(source.classes))[:count])
    factor = float(rng.uniform(*scale))
    # The largest offsets, inclusive, at which the resized source lies inside the target.
    slack = np.subtract(target.image.shape[:2], _patch_shape(target, factor))
    y, x = rng.integers(0, slack, endpoint=True).tolist()
    return paste(target, source.select(chosen), factor=factor, x=x, y=y, max_cover=max_cover)


def paste(
    target: Sample, source: Sample, *, factor: float, x: int, y: int, max_cover: float = 0.5
) -> Sample:
    """Paste all instances of ``source`` into ``target``, deterministically.

    The source's image and masks are resized to ``int(factor * H)`` x ``int(factor * W)`` for a
    target of H x W, whatever the source's size and aspect ratio. Resizing is bilinear without
    antialiasing; a pixel belongs to a mask if its interpolated weight is above 0. Instances
    without a pixel, or that cover ``max_cover`` or more of an existing mask, are not pasted. The
    pixels that the others cover are removed from the existing masks; a mask without pixels is
    dropped.

    Args:
        target: the sample to paste into; not modified.
        source: the sample to paste from; not modified.
        factor: the resized source's height and width over the target's, 0 to 1.
        x: column of the target at the left edge of the resized source.
        y: row of the target at its upper edge.
        max_cover: intersection over the existing mask's area, 0 to 1.

    Returns:
        A new sample with the existing instances first and with the boxes of the masks; the target
        itself if nothing is pasted.

    Raises:
        ValueError: the resized source does not lie inside the target.
    """
    height, width = _patch_shape(target, factor)
    window = (slice(y, y + height), slice(x, x + width))
    if min(x, y) < 0 or target.image[window].shape[:2] != (height, width):
        raise ValueError(
            f"a patch of {width} x {height} pixels at ({x}, {y}) is not inside the target"
        )
    # Only pixels inside the window change.
    pasted = _resize_support(source.masks, height, width)
    fits = _pastable(pasted, target.masks, window, max_cover)
    if not fits.any():
        return target
    pasted = pasted[fits]
    covered = np.asarray(pasted.any(axis=0))
    image = target.image.copy()
    patch = cv2.resize(source.image, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.copyTo(patch, covered.view(np.uint8), image[window])
    existing = len(target.masks)
    masks = np.zeros((existing + len(pasted), *image.shape[:2]), dtype=bool)
    masks[:existing] = target.masks
    masks[:existing, *window] &= ~covered
    masks[existing:, *window] = pasted
    classes = np.concatenate([target.classes, source.classes[fits]])
    scores = np.concatenate([target.scores, source.scores[fits]])
    boxes = bounding_boxes(masks)
    merged = Sample(image, masks, classes, scores, boxes.astype(np.float32))
    left = boxes[:, 2] > 0
    return merged if left.all() else merged.select(left)


def _patch_shape(target: Sample, factor: float) -> tuple[int, int]:
    height, width = (max(1, int(factor * side)) for side in target.image.shape[:2])
    return height, width


def _resize_support(masks: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resize (N, H, W) masks; a pixel is set if its bilinear interpolation is above 0."""
    support = np.zeros((len(masks), height, width), dtype=bool)
    boxes = bounding_boxes(masks)
    for mask, resized, (left, top, right, bottom) in zip(masks, support, boxes, strict=True):
        rows, above, below = _neighbours(mask.shape[0], height, top, bottom)
        columns, before, after = _neighbours(mask.shape[1], width, left, right)
        # Rows first, because whole rows are copied at once.
        lines = np.take(mask, above, axis=0) | np.take(mask, below, axis=0)
        resized[rows, columns] = np.take(lines, before, axis=1) | np.take(lines, after, axis=1)
    return support


def _neighbours(
    size: int, resized: int, start: int, end: int
) -> tuple[slice, NDArray[np.intp], NDArray[np.intp]]:
    """Return the pixels of a resized axis that interpolate source pixels start to end.

    Returns:
        The resized pixels, and the first and last source pixel with a weight above 0 of each.
    """
    # Positions in units of 1 / (2 * resized) source pixels: integers, so that rounding cannot give
    # a weight to a pixel that has none.
    positions = np.maximum((2 * np.arange(resized) + 1) * size - resized, 0)
    first, rest = np.divmod(positions, 2 * resized)
    last = np.minimum(first + (rest > 0), size - 1)
    reaching = slice(int(np.searchsorted(last, start)), int(np.searchsorted(first, end)))
    return reaching, first[reaching], last[reaching]


def _pastable(
    pasted: NDArray[np.bool_], existing: NDArray[np.bool_], window: _Window, max_cover: float
) -> NDArray[np.bool_]:
    """Return which (n, height, width) masks of the window may be pasted; see :func:`paste`."""
    areas = np.array([max(np.count_nonzero(mask), 1) for mask in existing])
    under = existing[:, *window]
    boxes = bounding_boxes(pasted)
    fits = boxes[:, 2] > 0
    for index, (left, top, right, bottom) in enumerate(boxes):
        box = (slice(top, bottom), slice(left, right))
        overlaps = np.array([np.count_nonzero(mask[box] & pasted[index][box]) for mask in under])
        fits[index] &= (overlaps < max_cover * areas).all()
    return fits
