import numpy as np
import pytest
from PIL import Image

from cuvler.pseudo_masks import maskcut
from cuvler.pseudo_masks.mask_cut import cuts

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


def test_the_objects_are_cut_one_by_one():
    _, features, kinds = two_objects()
    found = cuts(features, GRID, n=2, tau=0.15)
    objects = [kinds == 1, kinds == 2]
    assert all(any(np.array_equal(cut, thing) for thing in objects) for cut in found)
    assert not (found[0] & found[1]).any()


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
    found = cuts(features, GRID, n=5, tau=0.15)
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
