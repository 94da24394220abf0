import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cuvler import masks

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30))


@given(MASKS)
def test_round_trip_through_json(mask):
    rle = json.loads(json.dumps(masks.encode(mask)))
    np.testing.assert_array_equal(masks.decode(rle), mask)


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
