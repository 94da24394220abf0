"""Exact one-dimensional k-means."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_Indices = NDArray[np.intp]


def kmeans_1d(values: NDArray[np.floating], k: int) -> _Indices:
    """Label values by the k clusters with the least sum of squared distances to their means.

    In one dimension clusters are intervals, so dynamic programming over prefix sums finds the
    globally optimal k - 1 borders between the sorted values in O(k n log n) (Wang & Song,
    "Ckmeans.1d.dp", R Journal 3(2), 2011). There is no random initialisation.

    Args:
        values: any shape, finite.
        k: number of clusters, at least 2.

    Returns:
        Labels in the shape of ``values``, ascending with the values from 0. Equal values have
        equal labels: with fewer than k distinct values there are fewer than k labels. Ties
        between borders go to the lowest.

    Raises:
        ValueError: k is less than 2.
    """
    if k < 2:
        raise ValueError(f"k={k} clusters; k must be at least 2")
    distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    n = len(distinct)
    if n <= k:
        labels: _Indices = inverse.reshape(values.shape)
        return labels
    centred = distinct.astype(np.float64) - float(np.mean(values, dtype=np.float64))
    weight = np.concatenate(([0.0], np.cumsum(counts, dtype=np.float64)))
    total = np.concatenate(([0.0], np.cumsum(counts * centred)))

    def gain(start: _Indices, stop: _Indices) -> NDArray[np.float64]:
        # Minimising the squared distances maximises the sum of total^2 / weight of each cluster.
        between: NDArray[np.float64] = (total[stop] - total[start]) ** 2 / (
            weight[stop] - weight[start]
        )
        return between

    # best[stop]: the maximum for the first `stop` values with the clusters placed so far.
    ends = np.arange(n + 1)
    best = np.full(n + 1, -np.inf)
    best[1:] = gain(np.zeros(n, dtype=np.intp), ends[1:])
    choices = []
    for _ in range(k - 2):
        best, choice = _next_cluster(best, gain, n)
        choices.append(choice)
    border = int(np.argmax(best[:n] + gain(ends[:n], np.full(n, n))))
    borders = [border]
    for choice in reversed(choices):
        border = int(choice[border])
        borders.append(border)
    of_distinct = np.searchsorted(np.asarray(borders[::-1]), np.arange(n), side="right")
    labels = of_distinct[inverse].reshape(values.shape)
    return labels


def _next_cluster(
    best: NDArray[np.float64], gain: Callable[[_Indices, _Indices], NDArray[np.float64]], n: int
) -> tuple[NDArray[np.float64], _Indices]:
    """Add a cluster: find, for every stop, the best start of the cluster that ends there.

    The best start is monotonic in the stop, so the starts of the multiples of 2s bound the search
    for the odd multiples of s: about n candidates for each halving of s.
    """
    choice = np.zeros(n + 1, dtype=np.intp)
    following = np.full(n + 1, -np.inf)
    step = 1 << (n.bit_length() - 1)
    while step:
        stops = np.arange(step, n + 1, 2 * step)
        low = choice[stops - step]
        above = stops + step
        bound = np.where(above <= n, choice[np.minimum(above, n)], n)
        lengths = np.minimum(bound, stops - 1) - low + 1
        offsets = np.cumsum(lengths) - lengths
        segment = np.repeat(np.arange(len(stops)), lengths)
        starts = np.arange(len(segment)) + (low - offsets)[segment]
        candidates = best[starts] + gain(starts, stops[segment])
        following[stops] = np.maximum.reduceat(candidates, offsets)
        hits = np.flatnonzero(candidates == following[stops][segment])[::-1]
        # Reversed, the last assignment wins: the lowest of equally good starts.
        choice[stops[segment[hits]]] = starts[hits]
        step //= 2
    return following, choice
