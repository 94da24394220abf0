import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvler.pseudo_masks.clusters import cluster, overlaps
from cuvler.pseudo_masks.vote_cut import vote


def boxes(*specs, size=20):
    masks = np.zeros((len(specs), size, size), dtype=bool)
    for mask, (top, left, height, width) in zip(masks, specs, strict=True):
        mask[top : top + height, left : left + width] = True
    return masks


@st.composite
def proposals(draw):
    """Boxes near two places, so that some overlap."""
    spec = st.tuples(
        st.sampled_from([0, 1, 2, 9]),
        st.sampled_from([0, 1, 2, 9]),
        st.integers(4, 10),
        st.integers(4, 10),
    )
    return boxes(*draw(st.lists(spec, min_size=1, max_size=14)))


def test_overlaps_are_exact():
    ious = overlaps(boxes((0, 0, 10, 10), (0, 0, 10, 6), (10, 10, 3, 3)))
    assert ious.tolist() == [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]]


def test_an_iou_of_the_threshold_is_no_neighbour():
    assert len(cluster(np.array([[1, 0.6], [0.6, 1]]))) == 2
    assert cluster(np.array([[1, 0.61], [0.61, 1]])) == [[0, 1]]


def test_the_pivot_moves_and_the_cluster_grows():
    a, b, c, d, e, start = range(6)
    ious = np.eye(6)
    pairs = {(a, b): 0.9, (a, c): 0.9, (b, c): 0.9, (a, d): 0.9, (a, e): 0.6}
    pairs |= {(start, near): 0.61 for near in (a, b, c, e)}
    for (i, j), value in pairs.items():
        ious[i, j] = ious[j, i] = value
    # The first pivot has as many neighbours as a, but not d: that one comes by way of a.
    assert cluster(ious) == [[a, b, c, d, e, start]]


def test_members_taken_earlier_are_left_out():
    # 3 is a neighbour of 2 only, which the cluster of 0 and 1 took first.
    ious = np.eye(4)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        ious[i, j] = ious[j, i] = 0.9
    ious[2, 3] = ious[3, 2] = 0.61
    assert cluster(ious)[0] == [0, 1, 2, 3]
    ious[2, 3] = ious[3, 2] = 0.6
    assert cluster(ious) == [[0, 1, 2], [3]]


@given(proposals())
def test_no_proposal_is_in_two_clusters(masks):
    members = [member for group in cluster(overlaps(masks)) for member in group]
    assert len(members) == len(set(members))
    assert set(members) <= set(range(len(masks)))


@given(proposals(), st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_votes_are_sorted_and_not_empty(masks, tau_m):
    votes = vote(masks, tau_m=tau_m)
    sizes = [v.size for v in votes]
    assert len(votes) <= 10
    assert sizes == sorted(sizes, reverse=True)
    assert all(v.mask.any() for v in votes)
    union = masks.any(axis=0)
    assert all((v.mask <= union).all() for v in votes)


@given(st.permutations(range(9)))
def test_the_order_of_proposals_decides_ties_only(order):
    # Three groups of different sizes with different overlaps: no ties.
    masks = boxes(
        *((0, 0, 8, side) for side in (6, 7, 8, 9)),
        *((10, 10, side, 8) for side in (7, 8, 9)),
        (0, 14, 6, 5),
        (0, 14, 6, 6),
    )
    found = {(v.size, v.mask.tobytes()) for v in vote(masks[list(order)])}
    assert found == {(v.size, v.mask.tobytes()) for v in vote(masks)}


def test_a_pixel_needs_more_than_tau_m_of_the_votes():
    masks = boxes((0, 0, 10, 10), *[(0, 0, 10, 9)] * 4)
    assert vote(masks, tau_m=0.2)[0].mask.sum() == 90
    assert vote(masks, tau_m=0.19)[0].mask.sum() == 100


def test_ten_clusters_vote():
    corners = [(top, left, 3, 3) for top in (0, 5, 10, 15) for left in (0, 5, 10)]
    assert len(vote(boxes(*corners))) == 10
    assert len(vote(boxes(*corners), max_masks=11)) == 11


def test_ties_go_to_the_last():
    votes = vote(boxes((0, 0, 3, 3), (5, 5, 3, 3), (10, 10, 3, 3)), max_masks=2)
    assert [v.mask[11, 11] for v in votes] == [True, False]
    assert [v.mask[6, 6] for v in votes] == [False, True]


def test_nothing_proposed():
    assert vote(np.zeros((0, 60, 60), dtype=bool)) == []


@pytest.mark.parametrize("size", [1, 7])
def test_one_proposal(size):
    (only,) = vote(boxes((0, 0, size, size)))
    assert (only.size, only.mask.sum()) == (1, size * size)
