import numpy as np
import pytest
from PIL import Image

from cuvler.eigenvectors.merge_tree import merge_tree
from cuvler.pseudo_masks import agglomerate
from cuvler.pseudo_masks.agglomerative import find_regions, rank

GRID = (20, 24)
LOOKS = np.array([[1, 0, 0], [0, 1, 0.4], [0, 0.4, 1]])
COLOURS = np.array([[60, 90, 60], [220, 40, 40], [40, 60, 230]], dtype=np.uint8)


def touching(scale=1):
    """Two squares that touch, more similar to each other than to the background."""
    kinds = np.zeros(GRID, int)
    kinds[6:13, 4:11], kinds[6:13, 11:18] = 1, 2
    kinds = kinds.repeat(scale, axis=0).repeat(scale, axis=1)
    return kinds, merge_tree(LOOKS[kinds].reshape(-1, 3), kinds.shape)


def test_parts_and_the_whole_are_found_and_the_whole_stands_out_most():
    kinds, tree = touching()
    whole, *parts = rank({"a": tree}, [0.9, 0.5, 0.2], 10)
    assert np.array_equal(whole.mask, kinds > 0)
    assert {tuple(np.unique(kinds[part.mask])) for part in parts} == {(1,), (2,)}
    assert whole.score > parts[0].score


def test_regions_are_found_once_and_background_and_noise_never():
    kinds, _ = touching()
    kinds[1:5, 20:24] = 2  # 4 patches in height and width
    tree = merge_tree(LOOKS[kinds].reshape(-1, 3), GRID)
    found = [region.mask for region in find_regions(tree, [0.99, 0.9, 0.8, 0.2])]
    assert [int(mask.sum()) for mask in found] == [49, 49, 98]
    assert not any(mask[0, 0] or mask[1, 20] for mask in found)


def test_the_image_border_counts_against_a_region():
    inside, _ = touching()
    at_border = np.roll(inside, -4, axis=1)
    scores = [
        rank({"a": merge_tree(LOOKS[kinds].reshape(-1, 3), GRID)}, [0.2], 1)[0].score
        for kinds in (inside, at_border)
    ]
    assert scores[1] == pytest.approx(scores[0] * ((42 - 7) / 42) ** (1 / 3))


def test_backbones_of_other_grids_find_the_same_regions_once():
    _, coarse = touching()
    kinds, fine = touching(scale=2)
    both = rank({"a": coarse, "b": fine}, [0.9, 0.2], 10)
    assert [int(region.mask.sum()) for region in both] == [392, 196, 196]
    assert np.array_equal(both[0].mask, kinds > 0)
    alone = rank({"b": fine}, [0.9, 0.2], 10)
    assert [region.score for region in both] == pytest.approx([r.score for r in alone], rel=1e-5)
    assert len(rank({"a": coarse}, [0.9, 0.2], 2)) == 2


def test_masks_follow_the_image_and_are_scored_by_the_best():
    kinds, tree = touching()
    image = Image.fromarray(COLOURS[kinds]).resize((240, 200), Image.Resampling.NEAREST)
    masks = agglomerate(image, {"a": tree}, thresholds=[0.9, 0.2])
    pixels = kinds.repeat(10, axis=0).repeat(10, axis=1)
    # Of equal contrast to the background; 7 x 14 and 7 x 7 patches of 480.
    assert masks[0].score == pytest.approx((4 * 98**0.5 / 42 * (98 / 480) ** 0.25) ** (1 / 3))
    contrast = 1 - LOOKS[1] @ LOOKS[2] / (LOOKS[1] @ LOOKS[1])
    part = pytest.approx((contrast * (49 / 480) ** 0.25) ** (1 / 3), rel=1e-5)
    assert [mask.score for mask in masks[1:]] == [part, part]
    for mask, kind in zip(masks, (pixels > 0, pixels == 1, pixels == 2), strict=True):
        assert (mask.mask & kind).sum() / (mask.mask | kind).sum() > 0.95


def test_an_image_without_regions_has_no_masks():
    tree = merge_tree(np.ones((480, 3)), GRID)
    assert agglomerate(Image.new("RGB", (240, 200)), {"a": tree}) == []
    assert agglomerate(Image.new("RGB", (240, 200)), {}) == []
