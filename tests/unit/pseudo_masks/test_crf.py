import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cuvler.pseudo_masks import crf as crf_module
from cuvler.pseudo_masks import mean_field, refinement
from cuvler.pseudo_masks.crf import dense_crf
from cuvler.pseudo_masks.refinement import crop_of, fill_holes, refine


def disc(height, width, radius):
    y, x = np.ogrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 <= radius**2


def scene(seed=0, height=70, width=90, noise=20):
    """A bright disc on a dark ground with noise: the image and the disc."""
    rng = np.random.default_rng(seed)
    truth = disc(height, width, 22)
    clean = np.where(truth[..., None], (200, 150, 90), (40, 60, 80))
    return (clean + rng.normal(0, noise, clean.shape)).clip(0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("noise", [0, 5, 60])
@pytest.mark.parametrize("shape", [(70, 90), (31, 200)])
def test_fast_gives_what_pydensecrf_gives(shape, noise):
    image, truth = scene(1, *shape, noise)
    mask = np.roll(truth, (6, 9), axis=(0, 1))
    theirs = dense_crf(image, mask, crf="pydensecrf")
    ours = dense_crf(image, mask, crf="fast")
    assert theirs.any()
    assert np.count_nonzero(ours != theirs) <= 0.001 * mask.size


@pytest.mark.parametrize("crf", ["fast", "pydensecrf"])
def test_the_border_moves_to_the_edge(crf):
    image, truth = scene()
    mask = np.zeros_like(truth)
    mask[16:55, 26:66] = True
    refined = dense_crf(image, mask, crf=crf)
    assert np.count_nonzero(refined != truth) < 0.2 * np.count_nonzero(mask != truth)


@pytest.mark.parametrize("crf", ["fast", "pydensecrf"])
def test_masks_of_one_image_do_not_affect_each_other(crf):
    image, truth = scene()
    masks = np.stack([truth, np.roll(truth, 9, axis=1), np.zeros_like(truth)])
    together = dense_crf(image, masks, crf=crf)
    assert together[0].any()
    for mask, refined in zip(masks, together, strict=True):
        assert (refined == dense_crf(image, mask, crf=crf)).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (70, 90), (1, 1024)])
def test_the_spatial_lattice_of_an_image_is_cut_from_a_larger_one(monkeypatch, shape):
    cut = mean_field._spatial_lattice(shape, 3.0)
    monkeypatch.setattr(mean_field, "_GRID_SIDE", 0)
    built = mean_field._spatial_lattice(shape, 3.0)
    for ours, expected in zip(cut, built, strict=True):
        assert ours.dtype == expected.dtype
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize("crf", ["fast", "pydensecrf"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2), (1, 300)])
@pytest.mark.parametrize("full", [True, False])
def test_tiny_crops(crf, shape, full):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    refined = dense_crf(image, np.full(shape, full), crf=crf)
    assert (refined == full).all()


@pytest.mark.parametrize("crf", ["fast", "pydensecrf"])
def test_views_that_cannot_be_written_to(crf):
    image, truth = scene()
    expected = dense_crf(image[10:60, 20:70].copy(), truth[10:60, 20:70].copy(), crf=crf)
    image.setflags(write=False)
    truth.setflags(write=False)
    assert (dense_crf(image[10:60, 20:70], truth[10:60, 20:70], crf=crf) == expected).all()


def test_a_long_side_is_left_to_pydensecrf(monkeypatch):
    image, truth = scene()
    expected = dense_crf(image, truth, crf="pydensecrf")
    monkeypatch.setattr(crf_module, "_MAX_FAST_SIDE", 80)
    monkeypatch.setattr(crf_module, "_fast", None)
    assert (dense_crf(image, truth, crf="fast") == expected).all()


def test_many_colours_make_the_lattice_grow():
    # Every pixel in a simplex of its own: the hash table has to grow.
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)
    mask = disc(120, 120, 40)
    theirs, ours = (dense_crf(image, mask, crf=crf) for crf in ("pydensecrf", "fast"))
    assert np.count_nonzero(ours != theirs) <= 2


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
def test_holes_are_filled_as_scipy_does(seed, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < 0.6
    assert (fill_holes(mask) == ndimage.binary_fill_holes(mask)).all()


def test_the_crop_is_a_third_larger_and_stays_inside():
    mask = np.zeros((100, 100), dtype=bool)
    mask[20:31, 95:100] = True
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    rows, columns = crop_of(mask)
    assert image[rows, columns].shape[:2] == (17, 6)
    assert (rows.start, columns.start) == (17, 94)


@pytest.mark.parametrize(("left", "kept"), [(0, False), (4, False), (5, True), (10, True)])
def test_a_refinement_that_leaves_the_box_is_rejected(monkeypatch, left, kept):
    # Boxes of 10 x 10 and 10 x `left` pixels: an IoU of left / 10.
    def crf(image, mask, *, crf):
        refined = np.zeros_like(mask)
        refined[3:13, 3 : 3 + left] = True
        return refined

    monkeypatch.setattr(refinement, "dense_crf", crf)
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:20, 10:20] = True
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    refined = refine(image, mask, crf="fast")
    assert (refined is not None) == kept
    if refined is not None:
        assert refined.sum() == refined[10:20, 10 : 10 + left].sum() == 10 * left


@pytest.mark.parametrize("limit", [2000, 900])
def test_a_crop_too_large_for_the_crf_is_refined_coarser(monkeypatch, limit):
    image, truth = scene()
    mask = np.roll(truth, (3, 4), axis=(0, 1))
    fine = refine(image, mask, crf="fast")
    sizes = []

    def counting(pixels, coarse, crf):
        sizes.append(coarse.size)
        return dense_crf(pixels, coarse, crf=crf)

    monkeypatch.setattr(refinement, "dense_crf", counting)
    monkeypatch.setattr(refinement, "_MAX_CRF_PIXELS", limit)
    coarse = refine(image, mask, crf="fast")
    assert coarse.shape == mask.shape
    assert 0 < sizes[0] <= 1.1 * limit
    assert np.count_nonzero(coarse & fine) / np.count_nonzero(coarse | fine) > 0.7
