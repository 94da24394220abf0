"""The regions of an image's merge tree at given similarities, without torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def grains(tree: NDArray[np.floating], thresholds: Sequence[float]) -> NDArray[np.intp]:
    """Return the regions when no two neighbours are more similar than a threshold.

    A region of a lower threshold is a union of regions of a higher one.

    Args:
        tree: (2, h, w), from :func:`cuvler.eigenvectors.merge_tree.merge_tree`.
        thresholds: the similarity of each grain.

    Returns:
        (grains, h, w): the name of each patch's region, the index of its first patch.
    """
    parents, similarities = _flat(tree)
    is_merged = similarities > np.asarray(thresholds).reshape(-1, 1)
    found = np.where(is_merged, parents, np.arange(parents.size))
    while True:
        further = np.take_along_axis(found, found, axis=1)
        if np.array_equal(further, found):
            return found.reshape(-1, *tree.shape[1:])
        found = further


def next_merges(tree: NDArray[np.floating], regions: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the similarity at which each region merges with a neighbour.

    Args:
        tree: (2, h, w).
        regions: (h, w), one grain of :func:`grains`.

    Returns:
        (h * w,), valid at the indices that name regions; -1 if the region is the whole image.
    """
    parents, similarities = _flat(tree)
    names = np.unique(regions)
    merges = similarities.copy()
    np.maximum.at(merges, parents[names], similarities[names])
    return merges


def _flat(tree: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    parents, similarities = tree.reshape(2, -1)
    return parents.astype(np.intp), similarities.astype(np.float32)
