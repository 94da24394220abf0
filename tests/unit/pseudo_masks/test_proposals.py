import numpy as np
import pytest

from cuvler.pseudo_masks.proposals import propose, resize_nearest


def map_with(*boxes, size=30):
    """A map of zeros with boxes (top, left, height, width, value)."""
    vector = np.zeros((size, size), dtype=np.float32)
    for top, left, height, width, value in boxes:
        vector[top : top + height, left : left + width] = value
    return vector


def test_each_component_of_a_label_is_a_proposal():
    proposals = propose({"a": map_with((5, 5, 6, 6, 1), (15, 15, 8, 7, 1))}, ks=(2,))
    # Two values: the background covers the corners and goes, the two boxes stay.
    assert [proposal.sum() for proposal in proposals] == [4 * 36, 4 * 56]


def test_diagonal_neighbours_are_two_components():
    assert len(propose({"a": map_with((5, 5, 6, 6, 1), (11, 11, 6, 6, 1))}, ks=(2,))) == 2


@pytest.mark.parametrize(("height", "width", "kept"), [(5, 1, 1), (1, 5, 1), (4, 4, 0)])
def test_small_in_both_directions_is_noise(height, width, kept):
    assert len(propose({"a": map_with((9, 9, height, width, 1))}, ks=(2,))) == kept


@pytest.mark.parametrize(("boxes", "kept"), [([(0, 0, 9, 9, 1)], 1), ([(0, 0, 9, 30, 1)], 0)])
def test_two_corners_are_background(boxes, kept):
    # Background: the rest covers 3 or 2 corners.
    assert len(propose({"a": map_with(*boxes)}, ks=(2,))) == kept


@pytest.mark.parametrize(("pieces", "kept"), [(30, 30), (31, 0)])
def test_many_components_are_texture(pieces, kept):
    columns, rows = np.meshgrid(np.arange(6), np.arange(6))
    places = list(zip(rows.ravel() * 7 + 1, columns.ravel() * 7 + 1, strict=True))[:pieces]
    boxes = [(top, left, 5, 5, 1) for top, left in places]
    assert len(propose({"a": map_with(*boxes, size=44)}, ks=(2,))) == kept


def test_order_is_of_backbones_then_ks():
    one, other = map_with((5, 5, 6, 6, 1)), map_with((15, 15, 8, 8, 2))
    sums = [p.sum() for p in propose({"b": other, "a": one}, ks=(3, 2))]
    assert sums == [256, 256, 144, 144]


@pytest.mark.parametrize(
    "vector",
    [
        np.ones((30, 30)),
        np.full((30, 30), np.nan),
        np.where(np.eye(30) > 0, np.inf, 0),
        np.ones((1, 1)),
        np.arange(3.0).reshape(1, 3),
    ],
    ids=["constant", "nan", "inf", "one patch", "three patches"],
)
def test_maps_without_a_say(vector):
    assert propose({"a": vector}, ks=(2, 3)).shape == (0, 60, 60)


def test_a_component_between_the_pixels_of_the_grid_is_left_out():
    # Of 119 rows, row 118 is not sampled by the grid of 60 (57 * 119 // 60 = 113, ..., 117).
    assert len(propose({"a": map_with((118, 20, 1, 90, 1), size=119)}, ks=(2,))) == 0


def test_resize_takes_the_upper_left():
    mask = np.array([[True, False], [False, True]])
    assert resize_nearest(mask, 4, 2).tolist() == [[True, False]] * 2 + [[False, True]] * 2
    assert resize_nearest(mask, 1, 1).tolist() == [[True]]
    assert resize_nearest(np.eye(3, dtype=bool), 2, 2).tolist() == [[True, False], [False, True]]
