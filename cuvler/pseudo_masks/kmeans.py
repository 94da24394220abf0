"""Exact one-dimensional k-means."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_Indices = NDArray[np.intp]
_Sums = NDArray[np.float64]


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

    # best[stop]: the maximum for the first `stop` values with the clusters placed so far.
    best = np.full(n + 1, -np.inf)
    best[1:] = total[1:] ** 2 / weight[1:]
    choices = []
    for _ in range(k - 2):
        best, choice = _next_cluster(best, total, weight)
        choices.append(choice)
    border = int(np.argmax(best[:n] + (total[n] - total[:n]) ** 2 / (weight[n] - weight[:n])))
    borders = [border]
    for choice in reversed(choices):
        border = int(choice[border])
        borders.append(border)
    of_distinct = np.searchsorted(np.asarray(borders[::-1]), np.arange(n), side="right")
    labels = of_distinct[inverse].reshape(values.shape)
    return labels


@njit(cache=True, error_model="numpy")
def _next_cluster(best: _Sums, total: _Sums, weight: _Sums) -> tuple[_Sums, _Indices]:
    """Add a cluster: find, for every stop, the best start of the cluster that ends there.

    Minimising the squared distances maximises the sum of total^2 / weight of each cluster.

    The best start is monotonic in the stop, so the starts of the multiples of 2s bound the search
    for the odd multiples of s: about n candidates for each halving of s.
    """
    n = len(best) - 1
    choice = np.zeros(n + 1, dtype=np.intp)
    following = np.full(n + 1, -np.inf)
    step = 1
    while 2 * step <= n:
        step *= 2
    while step:
        for stop in range(step, n + 1, 2 * step):
            bound = choice[stop + step] if stop + step <= n else n
            for start in range(choice[stop - step], min(bound, stop - 1) + 1):
                gain = (total[stop] - total[start]) ** 2 / (weight[stop] - weight[start])
                if best[start] + gain > following[stop]:
                    following[stop], choice[stop] = best[start] + gain, start
        step //= 2
    return following, choice
