import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.labels import Place, place_labels


def square(top, left, side, size):
    mask = np.zeros(size[::-1], bool)
    mask[top : top + side, left : left + side] = True
    return mask


def covered(place, label, mask):
    """The fraction of a mask under a label."""
    under = mask[place.top : place.top + label[1], place.left : place.left + label[0]]
    return under.sum() / mask.sum()


def test_a_label_lies_above_a_small_object_and_touches_it():
    (place,) = place_labels([square(100, 100, 12, (300, 200))], (30, 14), (300, 200))
    assert place.top + 14 in range(94, 101)
    assert place.left < 106 < place.left + 30
    assert place.anchor[1] == 100


def test_at_the_border_there_is_room_elsewhere():
    size = (300, 200)
    for top, left in itertools.product((0, 188), (0, 288)):
        mask = square(top, left, 12, size)
        (place,) = place_labels([mask], (30, 14), size)
        assert covered(place, (30, 14), mask) == 0
        assert 0 <= place.left <= 270
        assert 0 <= place.top <= 186


def test_a_label_lies_on_an_object_that_fills_the_picture():
    whole = np.ones((200, 300), bool)
    assert place_labels([whole], (30, 14), (300, 200))[0]


def test_where_there_is_no_room_there_is_no_label():
    size = (100, 40)
    crowd = [square(top, left, 8, size) for top in range(0, 40, 10) for left in range(0, 100, 10)]
    assert place_labels(crowd, (30, 14), size) == [None] * len(crowd)
    assert place_labels([square(2, 2, 3, (8, 8))], (30, 14), (8, 8)) == [None]


def test_an_empty_mask_has_no_place_and_takes_none():
    size = (300, 200)
    mask, empty = square(50, 50, 20, size), np.zeros((200, 300), bool)
    assert place_labels([empty, mask], (30, 14), size) == [
        None,
        *place_labels([mask], (30, 14), size),
    ]


def test_in_a_large_picture_labels_are_near_their_masks_too():
    size, label = (3200, 2000), (300, 140)
    masks = [square(900, 300, 400, size), square(900, 1800, 90, size)]
    for mask, place in zip(masks, place_labels(masks, label, size), strict=True):
        assert covered(place, label, mask) < 0.2
        assert math.dist(place.nearest(label), place.anchor) < label[1] / 2
        x, y = place.anchor
        assert mask[y - 5 : y + 6, x - 5 : x + 6].any()


def test_a_speck_that_a_reduced_copy_loses_is_labelled():
    size = (4000, 3000)
    mask = square(1503, 2003, 2, size)
    (place,) = place_labels([mask], (220, 90), size)
    assert covered(place, (220, 90), mask) == 0


@settings(max_examples=50)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    label=st.tuples(st.integers(8, 40), st.integers(8, 20)),
    seed=st.integers(0, 99),
    count=st.integers(1, 20),
)
def test_labels_hide_neither_objects_nor_each_other(size, label, seed, count):
    generator = np.random.default_rng(seed)
    masks = [
        square(
            generator.integers(size[1]),
            generator.integers(size[0]),
            generator.integers(1, 40),
            size,
        )
        for _ in range(count)
    ]
    places = place_labels(masks, label, size)
    found = [place for place in places if isinstance(place, Place)]
    for place in found:
        assert 0 <= place.left <= max(size[0] - label[0], 0)
        assert 0 <= place.top <= max(size[1] - label[1], 0)
        assert max(covered(place, label, mask) for mask in masks) <= 0.2 + 1e-9
    for one, other in itertools.combinations(found, 2):
        apart = abs(one.left - other.left) >= label[0], abs(one.top - other.top) >= label[1]
        assert any(apart)
