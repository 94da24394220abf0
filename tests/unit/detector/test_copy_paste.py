import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.detector.copy_paste import (
    Sample,
    bounding_boxes,
    copy_paste,
    copy_paste_batch,
    resize_masks,
    resize_sample,
)

ALL = {"scale": (1.0, 1.0), "random_count": False, "max_cover": 0.5}


def sample(shape, boxes, colour, scores=None):
    """An image of one colour; each object, a box of rows and columns, is a shade brighter."""
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
    # The source is as large as the target: there is one place.
    assert len(merged.masks) == 3
    np.testing.assert_allclose(merged.scores, [0.9, 0.5, 0.25])
    np.testing.assert_array_equal(merged.masks[1:], source.masks)
    np.testing.assert_array_equal(merged.masks[0], target.masks[0] & ~source.masks[0])
    pasted = source.masks.any(axis=0)
    np.testing.assert_array_equal(merged.image[pasted], source.image[pasted])
    np.testing.assert_array_equal(merged.image[~pasted], target.image[~pasted])


def test_arguments_are_left_as_they_are():
    target, source = sample((30, 30), [(0, 30, 0, 20)], 10), sample((30, 30), [(5, 9, 5, 9)], 99)
    before = target.image.copy(), target.masks.copy(), source.image.copy()
    copy_paste(target, source, rng(), **ALL)
    for now, then in zip((target.image, target.masks, source.image), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(("height", "pasted"), [(9, True), (10, False), (20, False)])
def test_instances_that_cover_half_of_another_are_left_out(height, pasted):
    target = sample((40, 40), [(0, 20, 0, 20)], 10)
    source = sample((40, 40), [(0, height, 0, 20)], 100)
    merged = copy_paste(target, source, rng(), **ALL)
    assert len(merged.masks) == (2 if pasted else 1)
    if not pasted:
        np.testing.assert_array_equal(merged.image, target.image)


def test_an_existing_object_that_is_covered_bit_by_bit_is_gone():
    target = sample((40, 40), [(0, 20, 0, 20), (30, 40, 30, 40)], 10)
    thirds = [(0, 7, 0, 20), (7, 14, 0, 20), (14, 20, 0, 20)]
    merged = copy_paste(target, sample((40, 40), thirds, 100), rng(), **ALL)
    assert len(merged.masks) == 4
    np.testing.assert_array_equal(merged.masks[0], target.masks[1])


def test_nothing_to_paste_and_nothing_to_paste_over():
    empty, full = sample((20, 20), [], 10), sample((20, 20), [(2, 9, 2, 9)], 100)
    assert copy_paste(full, empty, rng(), **ALL) is full
    merged = copy_paste(empty, full, rng(), **ALL)
    np.testing.assert_array_equal(merged.masks, full.masks)


def test_scaled_objects_lie_anywhere_inside():
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


def test_larger_sources_are_cut_off():
    target = sample((20, 30), [], 10)
    source = sample((50, 20), [(0, 50, 0, 20)], 100)
    merged = copy_paste(target, source, rng(), **ALL)
    assert merged.masks.shape == (1, 20, 30)
    assert merged.masks[0].sum() == 20 * 20


def test_random_count_takes_from_one_to_all():
    target = sample((40, 40), [], 10)
    source = sample((40, 40), [(0, 5, 0, 5), (10, 15, 0, 5), (20, 25, 0, 5)], 100)
    options = {"scale": (1.0, 1.0), "random_count": True, "max_cover": 0.5}
    counts = [len(copy_paste(target, source, rng(s), **options).masks) for s in range(300)]
    assert set(counts) == {1, 2, 3}
    assert all(70 < counts.count(n) < 130 for n in (1, 2, 3))


def test_batch_is_paired_with_its_reverse_from_before_pasting():
    boxes = [[(0, 5, 0, 5)], [(10, 15, 10, 15)], [(20, 25, 20, 25)]]
    batch = [sample((40, 40), box, 10 * (i + 1)) for i, box in enumerate(boxes)]
    merged = copy_paste_batch(batch, rng(), **ALL)
    # The middle one is its own partner, and would cover itself.
    assert [len(m.masks) for m in merged] == [2, 1, 2]
    np.testing.assert_array_equal(merged[0].masks[1], batch[2].masks[0])
    np.testing.assert_array_equal(merged[2].masks[1], batch[0].masks[0])


def test_seed_decides():
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
    options = {"scale": (0.3, 1.2), "random_count": True, "max_cover": 0.5}
    merged = copy_paste(target, source, generator, **options)
    counts = {len(merged.masks), len(merged.classes), len(merged.scores)}
    assert len(counts) == 1
    assert merged.masks.any(axis=(1, 2)).all() or target.masks.shape[0] == len(merged.masks)
    brightness = merged.image[..., 0] >= 99
    from_source = [mask for mask in merged.masks if brightness[mask].any()]
    kept = [mask for mask in merged.masks if not brightness[mask].any()]
    # What was pasted is cut from what was there.
    for mask in kept:
        for other in from_source:
            assert not (mask & other).any()


def test_resized_masks_take_the_nearest_pixel():
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, :2, :2] = True
    assert resize_masks(mask, 2, 2).tolist() == [[[True, False], [False, False]]]
    np.testing.assert_array_equal(resize_masks(mask, 4, 4), mask)
    doubled = resize_masks(mask, 8, 8)
    assert doubled.sum() == 16
    assert doubled[0, :4, :4].all()
    resized = resize_sample(sample((40, 20), [(0, 20, 0, 20)], 10), 20, 10)
    assert resized.image.shape == (20, 10, 3)
    assert resized.masks.shape == (1, 20, 10)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_boxes_are_tight(seed, count):
    masks = rng(seed).random((count, 9, 13)) < 0.06
    masks[:, 4, 6] |= ~masks.any(axis=(1, 2))
    boxes = bounding_boxes(masks)
    assert boxes.shape == (count, 4)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert (left, top) == (columns.min(), rows.min())
        assert (right, bottom) == (columns.max() + 1, rows.max() + 1)


def _rest():
    return {"random_count": False, "max_cover": 0.5}
