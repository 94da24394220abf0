import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cuvler.eigenvectors import ncut
from cuvler.eigenvectors.cuts import cut_repeatedly
from cuvler.eigenvectors.partitions import foreground_union, partitions
from cuvler.pseudo_masks import maskcut

GRID = (20, 24)


def two_objects():
    """A picture of two discs of different colours, and the features of its patches."""
    y, x = np.mgrid[: GRID[0], : GRID[1]] + 0.5
    kinds = np.zeros(GRID, dtype=int)
    kinds[(y - 6) ** 2 + (x - 6) ** 2 < 16] = 1
    kinds[(y - 14) ** 2 + (x - 17) ** 2 < 12] = 2
    features = np.eye(3)[kinds] + np.random.default_rng(0).normal(0, 0.05, (*GRID, 3))
    colours = np.array([[60, 90, 60], [220, 40, 40], [40, 60, 230]], dtype=np.uint8)[kinds]
    image = Image.fromarray(colours).resize((240, 200), Image.Resampling.NEAREST)
    return image, features.reshape(-1, 3), kinds


def cuts(features, n):
    pairs = cut_repeatedly(torch.as_tensor(features)[None], GRID, n=n)
    assert pairs.status == ["ok"]
    return partitions(pairs.vectors[0].numpy().reshape(n, *GRID))


def test_the_objects_are_cut_one_by_one():
    _, features, kinds = two_objects()
    found = cuts(features, 2)
    objects = [kinds == 1, kinds == 2]
    assert all(any(np.array_equal(cut, thing) for thing in objects) for cut in found)
    assert not (found[0] & found[1]).any()


def test_a_cut_is_held_against_the_one_before_it_only():
    first, second = square(5, 5, 4, 3.0), square(12, 12, 5, 3.0)
    found = partitions(np.stack([first, second, second, first]))
    # The third is the second once more. The fourth is none of the third, but all of it is taken.
    assert [cut.sum() for cut in found] == [16, 25, 0, 0]
    shifted = square(6, 5, 4, 3.0)
    assert partitions(np.stack([first, second, shifted]))[2].sum() == 4


@pytest.mark.parametrize("crf", ["fast", "pydensecrf"])
def test_masks_have_the_image_size(crf):
    image, features, kinds = two_objects()
    masks = maskcut(image, features, GRID, n=2, crf=crf)
    assert len(masks) == 2
    for mask in masks:
        assert mask.mask.shape == (200, 240)
        assert mask.vote_mask.shape == (480, 480)
        assert (mask.score, mask.cluster_size, mask.crf_success) == (1.0, 1, True)
        truth = np.kron(kinds == kinds[mask.mask[5::10, 5::10]][0], np.ones((10, 10))) > 0
        assert (mask.mask & truth).sum() / (mask.mask | truth).sum() > 0.9


def test_no_more_cuts_than_there_are_things():
    _, features, kinds = two_objects()
    found = cuts(features, 5)
    assert sum(cut.astype(int) for cut in found).max() == 1
    assert sum(cut.sum() for cut in found) <= kinds.size


def test_one_colour_does_not_crash():
    image = Image.new("L", (33, 21), 128)
    for mask in maskcut(image, np.ones((480, 4)), GRID, crf="fast"):
        assert mask.mask.any()


def test_features_must_fill_the_grid():
    with pytest.raises(ValueError, match="12 patches do not fill a grid of 3 x 5"):
        maskcut(Image.new("RGB", (9, 9)), np.ones((12, 2)), (3, 5))


def test_features_that_are_not_finite():
    with pytest.raises(ArithmeticError, match="no eigenvector"):
        maskcut(Image.new("RGB", (9, 9)), np.full((480, 2), np.nan), GRID)


def test_the_first_eigenvector_is_that_of_the_generalized_problem():
    _, features, _ = two_objects()
    pairs = cut_repeatedly(torch.as_tensor(features)[None], GRID, n=2)
    first = ncut(features).generalized()[0]
    cosine = abs(pairs.vectors[0, 0].numpy() @ first) / np.linalg.norm(first)
    assert cosine > 0.999999


def test_a_batch_is_its_images_and_one_that_fails_harms_no_other():
    _, features, _ = two_objects()
    rng = np.random.default_rng(1)
    batch = np.stack([features, np.full_like(features, np.nan), features + rng.normal(0, 0.02)])
    pairs = cut_repeatedly(torch.from_numpy(batch), GRID, n=2)
    assert pairs.status.tolist() == ["ok", "failed", "ok"]
    for index in (0, 2):
        alone = cut_repeatedly(torch.from_numpy(batch[index])[None], GRID, n=2)
        found = partitions(pairs.vectors[index].numpy().reshape(2, *GRID))
        assert np.array_equal(found, partitions(alone.vectors[0].numpy().reshape(2, *GRID)))


def square(y, x, side, value, background=0.0):
    vector = np.full((20, 20), background)
    vector[y : y + side, x : x + side] = value
    return vector


def test_a_cut_is_the_side_of_the_seed():
    assert np.array_equal(partitions(square(5, 5, 4, 3.0)[None])[0], square(5, 5, 4, 1) > 0)
    # The largest magnitude is on the low side: the partition is turned round.
    assert np.array_equal(partitions(square(5, 5, 4, -3.0)[None])[0], square(5, 5, 4, 1) > 0)


def test_three_corners_are_background():
    cut = partitions(-square(5, 5, 4, 1.0, background=-2.0)[None])[0]
    assert np.array_equal(cut, square(5, 5, 4, 1) > 0)


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        (square(12, 12, 5, 3.0), 25),  # elsewhere
        (square(5, 5, 4, 3.0), 0),  # the same once more
        (square(12, 12, 2, 3.0), 0),  # 1 % of the patches
        (square(7, 7, 4, 3.0), 12),  # what the first took is taken off
    ],
)
def test_later_cuts_are_kept_or_dropped(second, kept):
    found = partitions(np.stack([square(5, 5, 4, 3.0), second]))
    assert found[1].sum() == kept
    assert not (found[0] & found[1]).any()


SQUARES = [(2, 2), (11, 12), (2, 13), (12, 3)]


def scene(count, *, kinds=None, noise=0.05, seed=0, turn=2.0):
    """Squares of 25 patches on a background: features, and the kind of each patch.

    The background changes from top to bottom, so that a cut can divide it.
    """
    rng = np.random.default_rng(seed)
    of_patch = np.zeros((20, 20), dtype=int)
    for number, (top, left) in enumerate(SQUARES[:count], start=1):
        of_patch[top : top + 5, left : left + 5] = kinds[number - 1] if kinds else number
    angles = np.broadcast_to(np.linspace(0, turn, 20)[:, None], (20, 20, 1))
    background = np.cos(angles) * np.eye(8)[0] + np.sin(angles) * np.eye(8)[7]
    features = np.where(of_patch[..., None] > 0, np.eye(8)[of_patch], background)
    features = features + rng.normal(0, noise, features.shape)
    return features.reshape(-1, 8), of_patch


def cut_scene(features, n=10, **options):
    pairs = cut_repeatedly(torch.as_tensor(features)[None], (20, 20), n=n, **options)
    return partitions(pairs.vectors[0].numpy().reshape(n, 20, 20)), pairs


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("alike", [False, True])
def test_cutting_ends_where_only_background_is_left(count, alike):
    features, of_patch = scene(count, kinds=[1] * 4 if alike else None)
    cuts, pairs = cut_scene(features, stop_at_background=True)
    found = [cut for cut in cuts if cut.any()]
    squares = [top * 20 + left for top, left in SQUARES[:count]]
    assert len(found) == count
    assert sorted(int(cut.argmax()) for cut in found) == sorted(squares)
    assert np.array_equal(sum(found) > 0, of_patch > 0)
    # What was not cut is 0, at the end.
    made = pairs.vectors[0].any(dim=-1)
    assert made.tolist() == sorted(made.tolist(), reverse=True)
    assert not pairs.values[0, ~made].any()
    # Without the rule, what is left is cut on.
    assert len([cut for cut in cut_scene(features)[0] if cut.any()]) > count


def test_votes_find_the_union_of_objects_of_one_kind_and_of_several():
    for kinds in ([1, 1, 1, 1], [1, 2, 1, 2], [1, 2, 3, 4]):
        features, of_patch = scene(4, kinds=kinds, noise=0, turn=0)
        degrees = (features @ features.T > 0.15).sum(axis=1).reshape(20, 20)
        assert np.array_equal(foreground_union(degrees), of_patch > 0)
        # Where the objects cover more of the image, the corners say which side is background.
        assert np.array_equal(foreground_union(degrees.max() - degrees), of_patch > 0)


def test_where_all_is_background_nothing_is_cut():
    cuts, pairs = cut_scene(scene(0)[0], stop_at_background=True)
    assert not cuts.any()
    assert not pairs.vectors.any()
    assert pairs.status == ["ok"]


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 4), st.floats(0.01, 0.5), st.integers(0, 10**6), st.integers(1, 4))
def test_the_rule_only_leaves_out_later_cuts(count, noise, seed, n):
    features = torch.as_tensor(scene(count, noise=noise, seed=seed)[0])
    batch = torch.stack([features, features.flip(0), torch.full_like(features, torch.nan)])
    all_cuts = cut_repeatedly(batch, (20, 20), n=n)
    pairs = cut_repeatedly(batch, (20, 20), n=n, stop_at_background=True)
    assert pairs.status.tolist() == all_cuts.status.tolist() == ["ok", "ok", "failed"]
    for index in (0, 1):
        made = int(pairs.vectors[index].any(dim=-1).sum())
        assert torch.equal(pairs.vectors[index, :made], all_cuts.vectors[index, :made])
        assert not pairs.vectors[index, made:].any()
        alone = cut_repeatedly(batch[[index]], (20, 20), n=n, stop_at_background=True)
        assert torch.equal(alone.vectors[0], pairs.vectors[index])


def test_masks_end_with_the_objects():
    image, features, _ = two_objects()
    assert len(maskcut(image, features, GRID, n=8, stop_at_background=True)) == 2
