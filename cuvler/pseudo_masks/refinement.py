"""Refining coarse masks with a dense CRF, which aligns their borders with image edges."""

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from cuvler.masks import bounding_box
from cuvler.pseudo_masks.crf import Crf, dense_crf

_MIN_BOX_IOU = 0.5
# The CRF takes 160 bytes per pixel: larger crops are subsampled by an integer step.
_MAX_CRF_PIXELS = 2**23


def refine(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], *, crf: Crf
) -> NDArray[np.bool_] | None:
    """Refine a mask on its box, padded by a third of the box's sides (CuVLER, section 3.1).

    Args:
        image: (H, W, 3) RGB.
        mask: (H, W), not empty.
        crf: implementation of the dense CRF.

    Returns:
        The refined mask (H, W) with holes filled; None if it is empty or the IoU of its box and
        the box of ``mask`` is below 0.5.
    """
    crop = crop_of(mask)
    refined = _refine_crop(image[crop], mask[crop], crf)
    if not refined.any() or _box_iou(refined, mask[crop]) < _MIN_BOX_IOU:
        return None
    whole = np.zeros_like(mask)
    whole[crop] = refined
    return whole


def _refine_crop(image: NDArray[np.uint8], mask: NDArray[np.bool_], crf: Crf) -> NDArray[np.bool_]:
    step = math.ceil(math.sqrt(mask.size / _MAX_CRF_PIXELS))
    refined = fill_holes(dense_crf(image[::step, ::step], mask[::step, ::step], crf=crf))
    if step == 1:
        return refined
    height, width = mask.shape
    return refined.repeat(step, axis=0)[:height].repeat(step, axis=1)[:, :width]


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill background regions that do not touch the border, (h, w).

    Same result as ``scipy.ndimage.binary_fill_holes``, which dilates iteratively and takes longer
    than the dense CRF.
    """
    filled = np.zeros_like(mask)
    if not mask.any():
        return filled
    left, top, right, bottom = bounding_box(mask)
    box = slice(top, bottom), slice(left, right)
    regions, count = scipy.ndimage.label(~mask[box])
    outside = np.zeros(count + 1, dtype=np.bool_)
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        outside[edge] = True
    outside[0] = False  # Label 0 is the mask.
    filled[box] = ~outside[regions]
    return filled


def crop_of(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of a mask's box, padded by a third of its sides."""
    left, top, right, bottom = bounding_box(mask)
    return _padded(top, bottom), _padded(left, right)


def _padded(start: int, stop: int) -> slice:
    margin = (stop - start) // 3
    return slice(max(start - margin, 0), stop + margin)


def _box_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    boxes = np.array([bounding_box(one), bounding_box(other)])
    area_one, area_other = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    sides = boxes[:, 2:].min(axis=0) - boxes[:, :2].max(axis=0)
    shared = sides.clip(0).prod()
    return float(shared / (area_one + area_other - shared))
