"""MaskCut's bipartitions of an image from its eigenvectors, without torch."""

import numpy as np
import scipy
from numpy.typing import NDArray

from cuvler.masks import iou

_MAX_CORNERS = 2  # A foreground with more corners of the image is the background.
_MAX_IOU = 0.5  # IoU above which a cut repeats the previous one.
_MIN_AREA = 0.01  # Fraction of the patches up to which a cut is noise.


def partitions(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Compute an image's cuts from its eigenvectors.

    Args:
        vectors: (n, h, w), in the order of the cuts.

    Returns:
        (n, h, w), disjoint masks; empty where a cut was dropped.
    """
    found = np.zeros(vectors.shape, dtype=np.bool_)
    for number, vector in enumerate(vectors):
        cut = _seed_component(vector)
        if number and _is_dropped(cut, found[number - 1]):
            continue
        found[number] = cut & ~found.any(axis=0)
    return found


def _seed_component(vector: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return the connected component of the bipartition's foreground that contains the seed."""
    foreground = vector > vector.mean()
    seed = np.unravel_index(np.argmax(np.abs(vector)), vector.shape)
    corners = np.count_nonzero(foreground[[0, 0, -1, -1], [0, -1, 0, -1]])
    if corners > _MAX_CORNERS or not foreground[seed]:
        foreground = ~foreground
        seed = np.unravel_index(np.argmin(vector), vector.shape)
    components, _ = scipy.ndimage.label(foreground)  # 4-connected
    side: NDArray[np.bool_] = foreground & (components == components[seed])
    return side


def _is_dropped(cut: NDArray[np.bool_], previous: NDArray[np.bool_]) -> bool:
    return bool(iou(cut, previous) > _MAX_IOU or cut.mean() <= _MIN_AREA)
