import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from cuvler import masks

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30))


@given(MASKS)
def test_bounding_box_is_pycocotools(mask):
    left, top, right, bottom = masks.bounding_box(mask)
    box = masks.geometry(masks.encode(mask))["bbox"]
    assert [left, top, right - left, bottom - top] == box
    assert not mask.any() or mask[top:bottom, left:right].sum() == mask.sum()


@given(MASKS)
def test_round_trip_through_json(mask):
    rle = json.loads(json.dumps(masks.encode(mask)))
    np.testing.assert_array_equal(masks.decode(rle), mask)


@settings(max_examples=500)
@given(MASKS, st.booleans(), st.sampled_from([np.bool_, np.uint8]))
def test_encoding_is_pycocotools(mask, transposed, dtype):
    mask = (mask.T if transposed else mask).astype(dtype)
    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert masks.encode(mask) == {
        "size": list(mask.shape),
        "counts": expected["counts"].decode("ascii"),
    }


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 4)])
@pytest.mark.parametrize("value", [False, True])
def test_encoding_of_nothing_and_of_everything(shape, value):
    mask = np.full(shape, value)
    rle = masks.encode(mask)
    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert rle["counts"].encode("ascii") == expected["counts"]
    assert masks.geometry(rle)["area"] == mask.sum()


@given(MASKS, st.booleans())
def test_geometry(mask, transposed):
    if transposed:  # a view that is not contiguous
        mask = mask.T
    geometry = masks.geometry(masks.encode(mask))
    assert geometry["area"] == mask.sum()
    if mask.any():
        ys, xs = np.nonzero(mask)
        width, height = np.ptp(xs) + 1, np.ptp(ys) + 1
        assert geometry["bbox"] == [xs.min(), ys.min(), width, height]


SIDES = st.integers(1, 60)


@settings(max_examples=500)
@given(MASKS, SIDES, SIDES, st.sampled_from(["str", "bytes", "list"]))
def test_decoding_resized_is_decoding_and_resizing(mask, height, width, kind):
    """Scaled down on both sides, on one or on none."""
    rle = masks.encode(mask)
    if kind == "bytes":
        rle = {**rle, "counts": rle["counts"].encode()}
    if kind == "list":
        bounds = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
        rle = {**rle, "counts": np.diff(bounds, prepend=0, append=mask.size).tolist()}
    expected = masks.resize(mask, height, width)
    np.testing.assert_array_equal(masks.decode_resized(rle, height, width), expected)


def test_a_large_mask_is_not_decoded_at_its_own_size():
    height, width = 3024, 4032
    rows, columns = np.ogrid[:height, :width]
    rle = masks.encode((rows - 1500) ** 2 + (columns - 2500) ** 2 < 750**2)
    tracemalloc.start()
    found = masks.decode_resized(rle, 800, 1062)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, masks.resize(masks.decode(rle), 800, 1062))
    assert peak < height * width / 5


def test_runs_beyond_the_mask_are_an_error():
    rle = {"size": [3, 4], "counts": [5, 8]}
    for shape in ((2, 2), (9, 9)):
        with pytest.raises(ValueError, match=r"13 .* 4 x 3"):
            masks.decode_resized(rle, *shape)


@given(MASKS)
def test_run_sums_are_those_of_the_mask(mask):
    assert masks.run_sums(masks.encode(mask)["counts"]) == (mask.size, mask.sum())


@given(st.text())
def test_run_sums_of_any_text(text):
    sums = masks.run_sums(text)
    assert sums is None or 0 <= sums[1] <= sums[0]
