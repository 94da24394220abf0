"""Clustering proposals by IoU."""

import numpy as np
from numpy.typing import NDArray

_MIN_IOU = 0.6  # IoU above which two proposals are neighbours.
_MAX_MOVES = 5  # Largest number of moves of a cluster's pivot.


def overlaps(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the pairwise IoU, (n, n), of non-empty masks (n, h, w)."""
    # float32 is exact for integers up to 2^24, so the order of summation does not matter.
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).astype(np.float32)
    shared = (flat @ flat.T).astype(np.float64)
    areas = np.diagonal(shared)
    ious: NDArray[np.float64] = shared / (areas[:, None] + areas[None, :] - shared)
    return ious


def cluster(ious: NDArray[np.float64]) -> list[list[int]]:
    """Cluster proposals greedily by IoU (CuVLER, section 3.1).

    The paper does not specify ties. Here, of proposals with equally many neighbours the last one
    is processed first, and of members with equal summed IoU the first one becomes the pivot.

    Args:
        ious: (n, n) pairwise IoU.

    Returns:
        The members of each cluster, ascending, in the order in which the clusters are found. The
        clusters are disjoint.
    """
    neighbours = ious > _MIN_IOU
    counts = np.count_nonzero(neighbours, axis=1)
    taken = np.zeros(len(ious), dtype=np.bool_)
    clusters = []
    for start in np.argsort(counts, kind="stable")[::-1]:
        if taken[start]:
            continue
        pivot, members = _grow(int(start), ious, neighbours)
        free = members & ~taken
        is_new = not taken[pivot]
        taken |= free
        if is_new:
            clusters.append([int(member) for member in np.flatnonzero(free)])
    return clusters


def _grow(
    pivot: int, ious: NDArray[np.float64], neighbours: NDArray[np.bool_]
) -> tuple[int, NDArray[np.bool_]]:
    members = neighbours[pivot].copy()
    for _ in range(_MAX_MOVES):
        inside = np.flatnonzero(members)
        pivot = int(inside[np.argmax(ious[np.ix_(inside, inside)].sum(axis=1))])
        grown = members | neighbours[pivot]
        if np.array_equal(grown, members):
            break
        members = grown
    return pivot, members
