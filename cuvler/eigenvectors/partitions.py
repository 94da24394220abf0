"""The cuts of an image that MaskCut's eigenvectors make; needs no torch."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cuvler.masks import iou

_MAX_CORNERS = 2  # A foreground with more of the image's corners is the background.
_MAX_OVERLAP = 0.5  # A cut that overlaps the one before by more is the same once more,
_MIN_SHARE = 0.01  # and one that covers no more of the patches is noise.


def partitions(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Give the cuts that an image's eigenvectors make.

    Args:
        vectors: (n, h, w), of cuts made one after the other.

    Returns:
        (n, h, w), masks that do not overlap; empty where a cut was dropped.
    """
    found = np.zeros(vectors.shape, dtype=np.bool_)
    for number, vector in enumerate(vectors):
        cut = _side_of_the_seed(vector)
        if number and _is_dropped(cut, found[number - 1]):
            continue
        found[number] = cut & ~found.any(axis=0)
    return found


def _side_of_the_seed(vector: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Give the side of a bipartition that is the object, the part around its seed."""
    foreground = vector > vector.mean()
    seed = np.unravel_index(np.argmax(np.abs(vector)), vector.shape)
    corners = np.count_nonzero(foreground[[0, 0, -1, -1], [0, -1, 0, -1]])
    if corners > _MAX_CORNERS or not foreground[seed]:
        foreground = ~foreground
        seed = np.unravel_index(np.argmin(vector), vector.shape)
    components, _ = ndimage.label(foreground)  # 4-connected
    side: NDArray[np.bool_] = foreground & (components == components[seed])
    return side


def _is_dropped(cut: NDArray[np.bool_], before: NDArray[np.bool_]) -> bool:
    return bool(iou(cut, before) > _MAX_OVERLAP or cut.mean() <= _MIN_SHARE)
