import numpy as np
import pytest
import torch
from PIL import Image

from cuvler.eigenvectors import ncut
from cuvler.eigenvectors.cuts import cut_repeatedly
from cuvler.eigenvectors.partitions import partitions
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
