import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cuvler.coco.segmentations import polygons_rle
from cuvler.export.label_studio import brush_rle
from cuvler.export.outlines import inset, one_ring, pieces, polygons
from cuvler.masks import decode

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def filled(outlines, mask):
    height, width = mask.shape
    return decode(polygons_rle(outlines, (width, height)))


@given(masks)
@settings(max_examples=60, deadline=None)
def test_outlines_have_the_pixels_of_their_mask(mask):
    found = polygons(mask)
    assert bool(found) == mask.any()
    if found:
        np.testing.assert_array_equal(filled(found, mask), mask)
        rings = [ring for piece in pieces(mask) for ring in (piece.outer, *piece.holes)]
        moved = one_ring([inset(ring, 0.05) for ring in rings])
        np.testing.assert_array_equal(filled([moved.ravel().tolist()], mask), mask)
        # Each line is moved to the inside: cut to whole numbers, all corners are in the mask.
        for ring in rings:
            x, y = inset(ring, 0.05).astype(int).T
            assert mask[y, x].all()


def test_a_piece_has_its_own_holes():
    mask = np.zeros((9, 20), bool)
    mask[:, :9] = mask[1:8, 11:] = True
    mask[2:7, 2:7] = False
    mask[4, 4] = True  # a piece within a hole
    mask[3, 13] = mask[4, 14] = False  # they touch, and are one hole
    found = pieces(mask)
    assert [len(piece.holes) for piece in found] == [1, 1, 0]
    assert found[0].holes[0].min() == 2
    assert found[0].holes[0].max() == 7
    assert found[2].outer.tolist() == [[4, 4], [5, 4], [5, 5], [4, 5]]


def unpacked(values):
    """Decode @thi.ng/rle-pack's stream as its page describes it."""
    bits = "".join(f"{value:08b}" for value in values)
    place = 0

    def take(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    found = []
    while len(found) < total:
        repeated = take(1)
        count = take(sizes[take(2)]) + 1
        if repeated:
            found += [take(word)] * count
        else:
            found += [take(word) for _ in range(count)]
    assert len(bits) - place < 8
    return np.array(found)


@given(masks, st.sampled_from([1, 30]))
@settings(max_examples=25, deadline=None)
def test_brush_strokes_have_the_pixels_of_their_mask(mask, times):
    mask = mask.repeat(times, axis=0).repeat(times, axis=1)  # also with long runs
    pixels = unpacked(brush_rle(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(pixels, np.repeat(mask[..., None], 4, axis=2) * 255)


def test_runs_beyond_the_longest_are_divided():
    mask = np.ones((200, 250), bool)  # 200,000 values
    assert unpacked(brush_rle(mask)).tolist() == [255] * 200_000
