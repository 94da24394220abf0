"""The vote: proposals that overlap are clustered, and each cluster votes on its mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MIN_IOU = 0.6  # Proposals that overlap more than this are neighbours.
_MAX_MOVES = 5  # How often a cluster's pivot may move.


@dataclass(frozen=True, eq=False)
class Vote:
    """A cluster's mask: ``mask`` (h, w) bool, never empty, and ``size``, how many voted."""

    mask: NDArray[np.bool_]
    size: int


def overlaps(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give the pairwise IoU, (n, n), of masks (n, h, w), none empty."""
    # Counts of at most 2^24 pixels are whole in float32: the product is exact in any order.
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).astype(np.float32)
    shared = (flat @ flat.T).astype(np.float64)
    areas = np.diagonal(shared)
    ious: NDArray[np.float64] = shared / (areas[:, None] + areas[None, :] - shared)
    return ious


def cluster(ious: NDArray[np.float64]) -> list[list[int]]:
    """Cluster proposals greedily by their overlaps (CuVLER, section 3.1).

    The paper's words leave ties open. Here, of proposals with equally many neighbours the last
    comes first; of members with equal summed IoU the first becomes the pivot.

    Args:
        ious: (n, n) pairwise IoU.

    Returns:
        The members of each cluster, ascending, in the order the clusters were found. No
        proposal is in two clusters.
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


def vote(proposals: NDArray[np.bool_], *, tau_m: float = 0.2, max_masks: int = 10) -> list[Vote]:
    """Let the first clusters vote, largest first.

    A pixel belongs to a mask where more than ``tau_m`` of the cluster's members say so.

    Args:
        proposals: (n, h, w) bool, none empty.
        tau_m: share of the members, in [0, 1).
        max_masks: how many clusters vote.

    Returns:
        At most ``max_masks`` votes.
    """
    votes = []
    for members in cluster(overlaps(proposals))[:max_masks]:
        count = np.count_nonzero(proposals[members], axis=0)
        votes.append(Vote(count > tau_m * len(members), len(members)))
    # With a high tau_m the members of a cluster may agree nowhere.
    return sorted((v for v in votes if v.mask.any()), key=lambda v: -v.size)
