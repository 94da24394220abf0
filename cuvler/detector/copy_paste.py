"""Copy-paste augmentation: objects of one training image over another.

Simple copy-paste (Ghiasi et al., CVPR 2021) as CutLER (Wang et al., CVPR 2023, section 3.4) uses
it. It works on arrays, in the data-loading processes, and draws only from the generator it is
given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_Window = tuple[slice, slice]


@dataclass(frozen=True)
class Sample:
    """One training image and its instances.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        masks: (N, H, W) bool.
        classes: (N,) int64.
        scores: (N,) float32.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]

    def select(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> "Sample":
        """Keep the chosen instances: their indices, or (N,) bool."""
        return Sample(self.image, self.masks[chosen], self.classes[chosen], self.scores[chosen])

    def without_empty(self) -> "Sample":
        """Drop the instances whose mask has no pixel."""
        present = _not_empty(self.masks)
        return self if present.all() else self.select(present)


def resize_masks(masks: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resize (N, H, W) masks to (N, height, width); each pixel takes its nearest."""
    rows = ((np.arange(height) + 0.5) * masks.shape[1] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * masks.shape[2] / width).astype(np.intp)
    # One axis after the other: whole rows are copied at once.
    resized: NDArray[np.bool_] = np.take(np.take(masks, columns, axis=2), rows, axis=1)
    return resized


def bounding_boxes(masks: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Give (N, 4) boxes, x0 y0 x1 y1, the last two exclusive, of (N, H, W) masks, none empty."""
    boxes = np.zeros((len(masks), 4), dtype=np.intp)
    for box, mask, columns in zip(boxes, masks, np.asarray(masks.any(axis=1)), strict=True):
        left, right = np.flatnonzero(columns)[[0, -1]]
        # Rows are looked at between the columns only: that is what takes time.
        top, bottom = np.flatnonzero(mask[:, left : right + 1].any(axis=1))[[0, -1]]
        box[:] = left, top, right + 1, bottom + 1
    return boxes


def _not_empty(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # Over rows first: numpy does that many pixels at a time.
    columns = np.asarray(masks.any(axis=1))
    return np.asarray(columns.any(axis=1), dtype=bool)


def resize_sample(sample: Sample, height: int, width: int) -> Sample:
    """Resize image (bilinear) and masks (nearest)."""
    image = Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR)
    masks = resize_masks(sample.masks, height, width)
    return Sample(np.asarray(image), masks, sample.classes, sample.scores)


def copy_paste_batch(
    samples: Sequence[Sample],
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    random_count: bool,
    max_cover: float,
) -> list[Sample]:
    """Paste into each sample of a batch from its partner in the reversed batch.

    The partners' instances are those from before any pasting. See :func:`copy_paste`.
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
    """Paste instances of ``source`` over ``target``.

    The source is scaled by a factor drawn from ``scale`` and laid at a random place, inside the
    target where it fits. Of its instances a random number (at least one), or all, is pasted,
    except those that cover ``max_cover`` or more of an existing mask and those that fall outside.
    What they cover is cut from the existing masks; a mask that is covered wholly is gone.

    Returns:
        A new sample, the existing instances first. Neither argument is changed.
    """
    count = len(source.classes)
    if count == 0:
        return target
    if random_count:
        count = int(rng.integers(1, count + 1))
    chosen = np.sort(rng.permutation(len(source.classes))[:count])
    factor = rng.uniform(*scale)
    height, width = (max(1, round(side * factor)) for side in source.image.shape[:2])
    patch = resize_sample(source.select(chosen), height, width)
    window, part = _place(patch.image.shape[:2], target.image.shape[:2], rng)
    # All that changes lies within the window.
    pasted = patch.masks[:, *part]
    fits = _not_empty(pasted)
    fits[fits] = _pastable(pasted[fits], target.masks, window, max_cover)
    if not fits.any():
        return target
    pasted = pasted[fits]
    covered = pasted[0].copy()
    for mask in pasted[1:]:
        covered |= mask
    image = target.image.copy()
    np.copyto(image[window], patch.image[part], where=covered[..., None])
    existing = len(target.masks)
    masks = np.zeros((existing + len(pasted), *image.shape[:2]), dtype=bool)
    masks[:existing] = target.masks
    masks[:existing, *window] &= ~covered
    masks[existing:, *window] = pasted
    merged = Sample(
        image,
        masks,
        np.concatenate([target.classes, patch.classes[fits]]),
        np.concatenate([target.scores, patch.scores[fits]]),
    )
    return merged.without_empty()


def _place(
    patch: tuple[int, int], canvas: tuple[int, int], rng: np.random.Generator
) -> tuple[_Window, _Window]:
    """Lay the patch at a random place of the canvas; what juts out is cut off.

    Returns:
        Rows and columns of the canvas, and those of the patch that lie there.
    """
    window, part = [], []
    for space, size in zip(canvas, patch, strict=True):
        slack = space - size
        offset = int(rng.integers(min(slack, 0), max(slack, 0) + 1))
        window.append(slice(max(offset, 0), min(offset + size, space)))
        part.append(slice(max(-offset, 0), min(space - offset, size)))
    return (window[0], window[1]), (part[0], part[1])


def _pastable(
    pasted: NDArray[np.bool_], existing: NDArray[np.bool_], window: _Window, max_cover: float
) -> NDArray[np.bool_]:
    """Tell which masks, (n, height, width) of the window, cover no existing one too much."""
    areas = np.array([max(np.count_nonzero(mask), 1) for mask in existing])
    under = existing[:, *window]
    fits = np.ones(len(pasted), dtype=bool)
    for index, (left, top, right, bottom) in enumerate(bounding_boxes(pasted)):
        box = (slice(top, bottom), slice(left, right))
        overlaps = np.array([np.count_nonzero(mask[box] & pasted[index][box]) for mask in under])
        fits[index] = (overlaps < max_cover * areas).all()
    return fits
