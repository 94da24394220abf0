from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cuvler.eigenvectors.grains import grains, next_merges
from cuvler.eigenvectors.merge_tree import merge_tree, merge_trees
from cuvler.eigenvectors.needs import NEEDS, MergeTree
from cuvler.errors import ConfigError

GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 5))
THRESHOLDS = (0.9, 0.5, 0.2, -0.3)


def plain_tree(features, grid):
    """The rule as it reads, with sums of features in float32 as they come."""
    height, width = grid
    rows = features.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    sums = dict(enumerate(np.divide(rows, norms, out=rows, where=norms > 0)))
    where = np.arange(height * width).reshape(grid)
    parents, similarities = where.astype(float), np.full(grid, -1.0)
    lowest = 1.0
    while len(sums) > 1:
        pairs = {
            (min(pair), max(pair))
            for one, other in ((where[1:], where[:-1]), (where[:, 1:], where[:, :-1]))
            for pair in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
            if pair[0] != pair[1]
        }
        similarity, a, b = max(
            ((cosine(sums[a], sums[b]), -a, -b) for a, b in pairs), key=lambda pair: pair
        )
        a, b = -a, -b
        lowest = min(lowest, similarity)
        parents.flat[b], similarities.flat[b] = a, lowest
        sums[a] = sums[a] + sums.pop(b)
        where[where == b] = a
    return np.stack([parents, similarities])


def cosine(one, other):
    norm = np.sqrt(np.float32(one @ one)) * np.sqrt(np.float32(other @ other))
    return np.float32(one @ other) / norm if norm > 0 else np.float32(0)


@pytest.mark.slow
@given(grid=GRIDS, data=st.data())
def test_the_tree_is_that_of_the_plain_rule(grid, data):
    # Sums of unit vectors along the axes are exact, and many pairs are equally similar.
    n = grid[0] * grid[1]
    axes = np.concatenate([np.eye(3), -np.eye(3), np.zeros((1, 3))])
    kinds = data.draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    features = axes[kinds] * data.draw(st.sampled_from([1, 4]))
    assert np.array_equal(merge_tree(features, grid), plain_tree(features, grid))


@pytest.mark.parametrize("seed", range(3))
def test_the_tree_of_any_features_is_that_of_the_plain_rule(seed):
    features = np.random.default_rng(seed).normal(0.3, 1, (80, 5))
    parents, similarities = merge_tree(features, (8, 10))
    plain = plain_tree(features, (8, 10))
    assert np.array_equal(parents, plain[0])
    assert np.allclose(similarities, plain[1], atol=1e-6)


def distinct(grid, seed):
    """Features with no two pairs of regions equally similar."""
    return np.random.default_rng(seed).normal(0.3, 1, (*grid, 4)).astype(np.float32)


def tree_of(features):
    return merge_tree(features.reshape(-1, features.shape[-1]), features.shape[:2])


def partition(regions):
    """Number the regions in the order in which their first patches come."""
    _, first, numbers = np.unique(regions, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers].reshape(regions.shape)


@given(grid=GRIDS, seed=st.integers(0, 99))
def test_regions_are_connected_nested_and_named_by_their_first_patch(grid, seed):
    tree = tree_of(distinct(grid, seed))
    found = grains(tree, THRESHOLDS)
    for regions in found:
        for name in np.unique(regions):
            assert ndimage.label(regions == name)[1] == 1
            assert np.flatnonzero(regions == name)[0] == name
    for fine, coarse in pairwise(found):
        for name in np.unique(fine):
            assert len(np.unique(coarse[fine == name])) == 1


@given(grid=GRIDS, seed=st.integers(0, 99), turn=st.sampled_from(["up", "left", "transpose"]))
def test_a_turned_image_has_turned_regions(grid, seed, turn):
    turned = {
        "up": lambda maps: maps[::-1],
        "left": lambda maps: maps[:, ::-1],
        "transpose": lambda maps: maps.swapaxes(0, 1),
    }[turn]
    features = distinct(grid, seed)
    for plain, other in zip(
        grains(tree_of(features), THRESHOLDS),
        grains(tree_of(turned(features)), THRESHOLDS),
        strict=True,
    ):
        assert np.array_equal(partition(turned(plain)), partition(other))


@given(grid=GRIDS, seed=st.integers(0, 99))
def test_channels_in_another_order_and_longer_features_change_no_region(grid, seed):
    features = distinct(grid, seed)
    other = features[..., ::-1] * np.random.default_rng(seed).uniform(0.5, 9, (*grid, 1))
    assert np.array_equal(grains(tree_of(features), THRESHOLDS), grains(tree_of(other), THRESHOLDS))


def test_equal_features_are_one_region():
    tree = merge_tree(np.full((30, 384), 0.1), (5, 6))
    assert not grains(tree, [0.999]).any()


def test_two_objects_that_touch_come_apart():
    kinds = np.zeros((6, 8), int)
    kinds[1:4, 1:4], kinds[1:4, 4:7] = 1, 2
    # The objects are more similar to each other than to the background.
    looks = np.array([[1, 0, 0], [0, 1, 0.4], [0, 0.4, 1]])
    tree = tree_of(looks[kinds])
    apart, together, all_ = grains(tree, [0.9, 0.2, -0.1])
    assert np.array_equal(partition(apart), kinds)
    assert np.array_equal(partition(together), kinds > 0)
    assert not all_.any()
    similarity = looks[1] @ looks[2] / (looks[1] @ looks[1])
    assert next_merges(tree, apart)[[9, 12]] == pytest.approx([similarity] * 2)
    assert next_merges(tree, together)[[0, 9]] == pytest.approx([0, 0], abs=1e-6)


def test_the_tree_of_a_batch_has_no_image_with_features_that_are_not_finite():
    features = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))
    features[1, 3, 2] = torch.inf
    trees = merge_trees(features.double(), (3, 4))
    assert trees.failed.tolist() == [False, True]
    assert trees.vectors[1].isnan().all()
    assert np.array_equal(
        trees.vectors[0].numpy().reshape(2, 3, 4), merge_tree(features[0].numpy(), (3, 4))
    )


def test_a_grid_of_another_size_is_refused():
    with pytest.raises(ValueError, match="12 patches do not fill a grid of 3 x 5"):
        merge_tree(np.ones((12, 2)), (3, 5))


def test_a_merge_tree_has_two_maps():
    assert NEEDS["merge_tree"]() == MergeTree()
    with pytest.raises(ConfigError, match="3 vectors: a merge tree has 2"):
        MergeTree(3)
