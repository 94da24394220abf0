"""MaskCut's bipartitions of an image from its eigenvectors, without torch."""

import numpy as np
import scipy
from numpy.typing import NDArray

from cuvler.masks import iou

_MAX_CORNERS = 2  # A foreground with more corners of the image is the background.
_MAX_IOU = 0.5  # IoU above which a cut repeats the previous one.
_MIN_AREA = 0.01  # Fraction of the patches up to which a cut is noise.
_VOTES = 0.5  # Background has at least this share of the largest number of votes.
_MIN_FOREGROUND = 0.5  # Smallest share of an object's patches that are foreground.


def partitions(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Compute an image's cuts from its eigenvectors.

    Args:
        vectors: (n, h, w), in the order of the cuts; 0 where no cut was made.

    Returns:
        (n, h, w), disjoint masks; empty where a cut was dropped or not made.
    """
    found = np.zeros(vectors.shape, dtype=np.bool_)
    for number, vector in enumerate(vectors):
        if not vector.any():
            continue
        cut = _seed_component(vector)
        if number and _is_dropped(cut, found[number - 1]):
            continue
        found[number] = cut & ~found.any(axis=0)
    return found


def foreground_union(degrees: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Estimate the union of an image's objects by votes of its patches (UnionCut, ICCV 2025).

    Each patch votes for the patches that are similar to it, its neighbours in the graph. Background
    gets many votes, objects get few. In the paper a voter's region is a minimum cut; here it is the
    patch's edges, which the normalized cut has already.

    Args:
        degrees: (h, w), of the patches in the graph.

    Returns:
        (h, w), the patches with less than half of the largest number of votes; inverted if it has
        3 or more of the image's corners.
    """
    union: NDArray[np.bool_] = degrees < _VOTES * degrees.max()
    return ~union if _corners(union) > _MAX_CORNERS else union


def is_background(cut: NDArray[np.bool_], union: NDArray[np.bool_]) -> bool:
    """Return whether most of a cut is outside the union of the foreground, or the cut is empty."""
    return bool((cut & union).sum() < _MIN_FOREGROUND * cut.sum()) or not cut.any()


def is_all_cut(cuts: NDArray[np.bool_], union: NDArray[np.bool_]) -> bool:
    """Return whether the cuts (n, h, w) leave at most noise of the union of the foreground."""
    return bool((union & ~cuts.any(axis=0)).mean() <= _MIN_AREA)


def _seed_component(vector: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return the connected component of the bipartition's foreground that contains the seed."""
    foreground = vector > vector.mean()
    seed = np.unravel_index(np.argmax(np.abs(vector)), vector.shape)
    if _corners(foreground) > _MAX_CORNERS or not foreground[seed]:
        foreground = ~foreground
        seed = np.unravel_index(np.argmin(vector), vector.shape)
    components, _ = scipy.ndimage.label(foreground)  # 4-connected
    side: NDArray[np.bool_] = foreground & (components == components[seed])
    return side


def _corners(side: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(side[[0, 0, -1, -1], [0, -1, 0, -1]]))


def _is_dropped(cut: NDArray[np.bool_], previous: NDArray[np.bool_]) -> bool:
    return bool(iou(cut, previous) > _MAX_IOU or cut.mean() <= _MIN_AREA)
