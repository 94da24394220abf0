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
        return self.select(np.flatnonzero(self.masks.any(axis=(1, 2))))


def resize_masks(masks: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resize (N, H, W) masks to (N, height, width); each pixel takes its nearest."""
    rows = ((np.arange(height) + 0.5) * masks.shape[1] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * masks.shape[2] / width).astype(np.intp)
    return masks[:, rows[:, None], columns]


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
    placed = _place(patch, target.image, rng).without_empty()
    placed = placed.select(_pastable(placed.masks, target.masks, max_cover))
    if len(placed.classes) == 0:
        return target
    covered = np.logical_or.reduce(placed.masks)
    merged = Sample(
        np.where(covered[..., None], placed.image, target.image),
        np.concatenate([target.masks & ~covered, placed.masks]),
        np.concatenate([target.classes, placed.classes]),
        np.concatenate([target.scores, placed.scores]),
    )
    return merged.without_empty()


def _place(patch: Sample, canvas: NDArray[np.uint8], rng: np.random.Generator) -> Sample:
    """Lay the patch at a random place of an empty canvas; what juts out is cut off."""
    image = np.zeros_like(canvas)
    masks = np.zeros((len(patch.masks), *canvas.shape[:2]), dtype=bool)
    window: list[slice] = []
    part: list[slice] = []
    for space, size in zip(canvas.shape[:2], patch.image.shape[:2], strict=True):
        slack = space - size
        offset = int(rng.integers(min(slack, 0), max(slack, 0) + 1))
        window.append(slice(max(offset, 0), min(offset + size, space)))
        part.append(slice(max(-offset, 0), min(space - offset, size)))
    image[window[0], window[1]] = patch.image[part[0], part[1]]
    masks[:, window[0], window[1]] = patch.masks[:, part[0], part[1]]
    return Sample(image, masks, patch.classes, patch.scores)


def _pastable(
    pasted: NDArray[np.bool_], existing: NDArray[np.bool_], max_cover: float
) -> NDArray[np.bool_]:
    # float32 counts pixels exactly up to 2^24.
    under = existing.astype(np.float32)
    overlap = np.tensordot(pasted.astype(np.float32), under, axes=((1, 2), (1, 2)))
    cover = overlap / np.maximum(under.sum(axis=(1, 2)), 1)
    fits: NDArray[np.bool_] = np.logical_and.reduce(cover < max_cover, axis=1)
    return fits
