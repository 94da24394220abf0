import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvler.pseudo_masks.kmeans import kmeans_1d

# Few distinct values make ties; whole numbers keep the costs exact.
numbers = st.lists(st.integers(-20, 20), min_size=1, max_size=12)


def cost(values, labels):
    groups = [values[labels == label] for label in np.unique(labels)]
    return sum(((group - group.mean()) ** 2).sum() for group in groups)


def best_cost(values, k):
    """By trying every way to cut the sorted values into k intervals."""
    ordered = np.sort(values)
    return min(
        cost(ordered, np.searchsorted(borders, np.arange(len(ordered)), side="right"))
        for borders in itertools.combinations_with_replacement(range(len(ordered)), k - 1)
    )


@given(numbers, st.integers(2, 5))
def test_as_good_as_brute_force(values, k):
    values = np.array(values, dtype=float)
    labels = kmeans_1d(values, k)
    assert cost(values, labels) == pytest.approx(best_cost(values, k), abs=1e-9)


@given(numbers, st.integers(2, 5))
def test_labels_rise_with_the_values(values, k):
    values = np.array(values, dtype=float)
    labels = kmeans_1d(values, k)
    order = np.argsort(values)
    assert (np.diff(labels[order]) >= 0).all()
    assert all(len(set(labels[values == value])) == 1 for value in values)
    assert set(labels) == set(range(min(k, len(set(values)))))


def test_as_good_as_scikit_learn_on_many_values():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 500), rng.normal(3, 0.5, 300)]).astype(np.float32)
    for k in (2, 3, 4, 7):
        theirs = KMeans(k, n_init=5, random_state=0, tol=0).fit(values[:, None]).labels_
        values64 = values.astype(float)
        assert cost(values64, kmeans_1d(values, k)) <= cost(values64, theirs) * (1 + 1e-12)


def test_keeps_the_shape_and_survives_a_large_offset():
    map_ = np.array([[1, 1, 9], [1, 9, 9]]) + 1e9
    assert kmeans_1d(map_, 2).tolist() == [[0, 0, 1], [0, 1, 1]]


def test_equally_good_borders_give_the_lower_one():
    assert kmeans_1d(np.array([0.0, 1.0, 2.0]), 2).tolist() == [0, 1, 1]


def test_one_cluster_is_no_clustering():
    with pytest.raises(ValueError, match="k=1"):
        kmeans_1d(np.arange(3.0), 1)
