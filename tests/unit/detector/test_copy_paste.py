import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("detectron2")

from cuvler.detector.copy_paste import (
    Sample,
    bounding_boxes,
    copy_paste,
    copy_paste_batch,
    paste,
)

ALL = {"scale": (1.0, 1.0), "random_count": False, "max_cover": 0.5}


def sample(shape, boxes, colour, scores=None):
    """An image of one colour with objects, boxes of rows and columns, each a shade brighter."""
    masks = np.zeros((len(boxes), *shape), dtype=bool)
    image = np.full((*shape, 3), colour, dtype=np.uint8)
    for index, (top, bottom, left, right) in enumerate(boxes):
        masks[index, top:bottom, left:right] = True
        image[masks[index]] = colour + index + 1
    classes = np.zeros(len(boxes), dtype=np.int64)
    scores = np.array(scores or [1.0] * len(boxes), dtype=np.float32)
    return Sample(image, masks, classes, scores)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_pasted_pixels_masks_and_scores():
    target = sample((40, 40), [(0, 20, 0, 20)], 10, [0.9])
    source = sample((40, 40), [(0, 10, 0, 10), (30, 40, 30, 40)], 100, [0.5, 0.25])
    merged = copy_paste(target, source, rng(), **ALL)
    # The source has the target's size, so there is only one position.
    assert len(merged.masks) == 3
    np.testing.assert_allclose(merged.scores, [0.9, 0.5, 0.25])
    np.testing.assert_array_equal(merged.masks[1:], source.masks)
    np.testing.assert_array_equal(merged.masks[0], target.masks[0] & ~source.masks[0])
    pasted = source.masks.any(axis=0)
    np.testing.assert_array_equal(merged.image[pasted], source.image[pasted])
    np.testing.assert_array_equal(merged.image[~pasted], target.image[~pasted])


def test_arguments_are_not_modified():
    target, source = sample((30, 30), [(0, 30, 0, 20)], 10), sample((30, 30), [(5, 9, 5, 9)], 99)
    before = target.image.copy(), target.masks.copy(), source.image.copy()
    copy_paste(target, source, rng(), **ALL)
    for now, then in zip((target.image, target.masks, source.image), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(("height", "pasted"), [(9, True), (10, False), (20, False)])
def test_instances_that_cover_half_of_another_are_not_pasted(height, pasted):
    target = sample((40, 40), [(0, 20, 0, 20)], 10)
    source = sample((40, 40), [(0, height, 0, 20)], 100)
    merged = copy_paste(target, source, rng(), **ALL)
    assert len(merged.masks) == (2 if pasted else 1)
    if not pasted:
        np.testing.assert_array_equal(merged.image, target.image)


def test_an_object_covered_completely_by_several_is_dropped():
    target = sample((40, 40), [(0, 20, 0, 20), (30, 40, 30, 40)], 10)
    thirds = [(0, 7, 0, 20), (7, 14, 0, 20), (14, 20, 0, 20)]
    merged = copy_paste(target, sample((40, 40), thirds, 100), rng(), **ALL)
    assert len(merged.masks) == 4
    np.testing.assert_array_equal(merged.masks[0], target.masks[1])


def test_empty_source_and_empty_target():
    empty, full = sample((20, 20), [], 10), sample((20, 20), [(2, 9, 2, 9)], 100)
    assert copy_paste(full, empty, rng(), **ALL) is full
    merged = copy_paste(empty, full, rng(), **ALL)
    np.testing.assert_array_equal(merged.masks, full.masks)


def test_scaled_objects_are_pasted_at_random_positions_inside():
    target = sample((60, 80), [], 10)
    source = sample((60, 80), [(0, 60, 0, 80)], 100)
    corners = set()
    for seed in range(200):
        merged = copy_paste(target, source, rng(seed), scale=(0.5, 0.5), **_rest())
        rows, columns = np.nonzero(merged.masks[0])
        assert merged.masks[0].sum() == 30 * 40
        corners.add((rows.min(), columns.min()))
    tops, lefts = zip(*corners, strict=True)
    assert min(tops) == 0
    assert max(tops) == 30
    assert min(lefts) == 0
    assert max(lefts) == 40


@pytest.mark.parametrize(
    ("target", "source", "box", "factor", "expected"),
    [
        # One more row or column on each side from interpolation.
        ((100, 200), (50, 50), (10, 30, 10, 40), 0.5, (19, 10, 81, 30)),
        ((100, 100), (400, 400), (100, 300, 100, 300), 1.0, (25, 25, 75, 75)),
        ((40, 60), (80, 20), (0, 80, 0, 20), 0.99, (0, 0, 59, 39)),
    ],
)
def test_sources_take_their_size_and_aspect_from_the_target(target, source, box, factor, expected):
    merged = paste(sample(target, [], 10), sample(source, [box], 100), factor=factor, x=0, y=0)
    assert merged.boxes.tolist() == [list(expected)]
    left, top, right, bottom = expected
    assert merged.masks.sum() == (right - left) * (bottom - top)


def test_pasting_does_not_blur():
    """Antialiasing would; here noise keeps most of its standard deviation."""
    noise = rng().integers(0, 256, (300, 300, 3), dtype=np.uint8)
    source = Sample(noise, np.ones((1, 300, 300), bool), np.zeros(1, np.int64), np.ones(1))
    merged = paste(sample((300, 300), [], 10), source, factor=0.3, x=0, y=0)
    assert merged.image[merged.masks[0]].std() == pytest.approx(48.6, abs=2)


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_masks_are_set_where_bilinear_interpolation_is_above_0(seed):
    generator = rng(seed)
    shape = generator.integers(1, 90, 2)
    masks = generator.random((3, *shape)) < generator.choice([0.02, 0.5])
    source = Sample(
        np.zeros((*shape, 3), np.uint8), masks, np.zeros(3, np.int64), np.ones(3, np.float32)
    )
    height, width = generator.integers(1, 90, 2).tolist()
    target = sample((height, width), [], 10)
    merged = paste(target, source, factor=1.0, x=0, y=0)
    weights = torch.nn.functional.interpolate(
        torch.from_numpy(masks[None].astype(float)), (height, width), mode="bilinear"
    )
    # The smallest weight is 1 / (4 * 90 * 90); rounding errors are some 1e-16.
    expected = weights[0].numpy() > 1e-9
    np.testing.assert_array_equal(merged.masks, expected[expected.any(axis=(1, 2))])


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (0, -1), (11, 0), (0, 16)])
def test_a_source_outside_the_target_is_refused(x, y):
    target, source = sample((30, 20), [], 10), sample((9, 9), [(0, 9, 0, 9)], 100)
    paste(target, source, factor=0.5, x=10, y=15)
    with pytest.raises(ValueError, match=rf"10 x 15 .*\({x}, {y}\)"):
        paste(target, source, factor=0.5, x=x, y=y)


@pytest.mark.parametrize(("available", "counts"), [(1, {1}), (2, {1}), (3, {1, 2}), (4, {1, 2, 3})])
def test_random_count_leaves_at_least_one_out(available, counts):
    target = sample((40, 40), [], 10)
    boxes = [(10 * index, 10 * index + 5, 0, 5) for index in range(available)]
    options = {"scale": (1.0, 1.0), "random_count": True, "max_cover": 0.5}
    source = sample((40, 40), boxes, 100)
    found = [len(copy_paste(target, source, rng(s), **options).masks) for s in range(300)]
    assert set(found) == counts
    assert all(found.count(n) > 200 / len(counts) for n in counts)


def test_boxes_are_recomputed_only_if_something_is_pasted():
    boxes = np.array([[1.5, 2.25, 20.0, 19.0]], dtype=np.float32)
    plain = sample((40, 40), [(0, 20, 0, 20)], 10)
    target = Sample(plain.image, plain.masks, plain.classes, plain.scores, boxes)
    merged = copy_paste(target, sample((40, 40), [(15, 30, 0, 20)], 100), rng(), **ALL)
    assert merged.boxes.tolist() == [[0, 0, 20, 15], [0, 15, 20, 30]]
    left_out = copy_paste(target, sample((40, 40), [(0, 20, 0, 20)], 100), rng(), **ALL)
    np.testing.assert_array_equal(left_out.boxes, boxes)


def test_batch_is_paired_with_its_reverse_from_before_pasting():
    boxes = [[(0, 5, 0, 5)], [(10, 15, 10, 15)], [(20, 25, 20, 25)]]
    batch = [sample((40, 40), box, 10 * (i + 1)) for i, box in enumerate(boxes)]
    merged = copy_paste_batch(batch, rng(), **ALL)
    # The middle sample is its own partner and would cover itself.
    assert [len(m.masks) for m in merged] == [2, 1, 2]
    np.testing.assert_array_equal(merged[0].masks[1], batch[2].masks[0])
    np.testing.assert_array_equal(merged[2].masks[1], batch[0].masks[0])


def test_results_depend_on_the_seed():
    batch = [sample((40, 40), [(0, 9, 0, 9)], 10 * i) for i in range(4)]
    options = {"scale": (0.3, 1.0), "random_count": True, "max_cover": 0.5}
    first = copy_paste_batch(batch, rng(3), **options)
    again = copy_paste_batch(batch, rng(3), **options)
    other = copy_paste_batch(batch, rng(4), **options)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
    assert any((one.image != two.image).any() for one, two in zip(first, other, strict=True))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4))
def test_every_instance_keeps_pixels_and_no_two_parts_share_any(seed, existing, pasted):
    generator = rng(seed)

    def random_boxes(count, shape):
        tops = generator.integers(0, shape[0] - 1, count)
        lefts = generator.integers(0, shape[1] - 1, count)
        return [
            (
                t,
                generator.integers(t + 1, shape[0] + 1),
                left,
                generator.integers(left + 1, shape[1] + 1),
            )
            for t, left in zip(tops, lefts, strict=True)
        ]

    target = sample((24, 30), random_boxes(existing, (24, 30)), 10)
    source = sample((28, 20), random_boxes(pasted, (28, 20)), 100)
    options = {"scale": (0.3, 1.0), "random_count": True, "max_cover": 0.5}
    merged = copy_paste(target, source, generator, **options)
    counts = {len(merged.masks), len(merged.classes), len(merged.scores)}
    assert len(counts) == 1
    assert merged.masks.any(axis=(1, 2)).all() or target.masks.shape[0] == len(merged.masks)
    brightness = merged.image[..., 0] >= 99
    from_source = [mask for mask in merged.masks if brightness[mask].any()]
    kept = [mask for mask in merged.masks if not brightness[mask].any()]
    # Pasted pixels are removed from the existing masks.
    for mask in kept:
        for other in from_source:
            assert not (mask & other).any()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_boxes_are_tight(seed, count):
    masks = rng(seed).random((count, 9, 13)) < 0.02
    boxes = bounding_boxes(masks)
    assert boxes.shape == (count, 4)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        rows, columns = np.nonzero(mask)
        if rows.size == 0:
            assert (left, top, right, bottom) == (0, 0, 0, 0)
            continue
        assert (left, top) == (columns.min(), rows.min())
        assert (right, bottom) == (columns.max() + 1, rows.max() + 1)


def _rest():
    return {"random_count": False, "max_cover": 0.5}
