"""Exact k-means of numbers."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def kmeans_1d(values: NDArray[np.floating], k: int) -> Indices:
    """Label numbers by the k clusters of least total squared distance to their means.

    On a line clusters are intervals, so the best k - 1 borders between the sorted values are
    found by dynamic programming over prefix sums (Wang & Song, "Ckmeans.1d.dp", R Journal 3(2),
    2011), in O(k n log n). There is no start to draw and no local optimum to be caught in.

    Args:
        values: any shape, finite.
        k: number of clusters, at least 2.

    Returns:
        Labels of the shape of ``values``: 0 for the cluster of smallest values, and so on.
        Equal values have equal labels, so there are fewer than k labels where there are fewer
        than k distinct values. Of equally good borders the lowest are taken.

    Raises:
        ValueError: k is less than 2.
    """
    if k < 2:
        raise ValueError(f"k={k} clusters: at least 2 are wanted")
    distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    n = len(distinct)
    if n <= k:
        labels: Indices = inverse.reshape(values.shape)
        return labels
    centred = distinct.astype(np.float64) - float(np.mean(values, dtype=np.float64))
    weight = np.concatenate(([0.0], np.cumsum(counts, dtype=np.float64)))
    total = np.concatenate(([0.0], np.cumsum(counts * centred)))

    def gain(start: Indices, stop: Indices) -> NDArray[np.float64]:
        # Least squared distance is most sum of (cluster's total)^2 / (cluster's weight).
        between: NDArray[np.float64] = (total[stop] - total[start]) ** 2 / (
            weight[stop] - weight[start]
        )
        return between

    # best[stop]: the most that the first `stop` values give with the clusters laid so far.
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
    best: NDArray[np.float64], gain: Callable[[Indices, Indices], NDArray[np.float64]], n: int
) -> tuple[NDArray[np.float64], Indices]:
    """Lay one more cluster: for every stop, the best start of the cluster that ends there.

    The best start never goes down as the stop goes up, so the starts found for the multiples of
    2s bound the search for the odd multiples of s: about n candidates for each halving of s.
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
        # The last assignment stays: of equally good starts, the lowest.
        choice[stops[segment[hits]]] = starts[hits]
        step //= 2
    return following, choice
