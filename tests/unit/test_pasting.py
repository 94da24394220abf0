import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("detectron2")

from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes

from cuvler import masks
from cuvler.predictions.pasting import paste


def probabilities(seed, size, smoothness):
    """Values of 0 to 1, from noise to blobs."""
    noise = np.random.default_rng(seed).random((size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), smoothness) if smoothness else noise
    return ((smooth - 0.5) * 8 + 0.5).clip(0, 1)


def pasted_by_detectron2(mask, box, height, width):
    boxes = Boxes(torch.from_numpy(box)[None])
    whole = paste_masks_in_image(torch.from_numpy(mask)[None], boxes, (height, width))
    return whole[0].numpy()


def interpolated(mask, box, height, width):
    """The pixels' values in float64."""
    numbers = np.arange(len(mask) + 2)
    x = ((np.arange(width) + 0.5 - box[0]) / (box[2] - box[0])) * len(mask) + 0.5
    y = ((np.arange(height) + 0.5 - box[1]) / (box[3] - box[1])) * len(mask) + 0.5
    lines = np.array([np.interp(y, numbers, column) for column in np.pad(mask, 1).T]).T
    return np.array([np.interp(x, numbers, line) for line in lines])


SHARES = st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)).map(sorted)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([7, 14, 28]),
    st.sampled_from([0, 1, 3]),
    st.integers(1, 300),
    st.integers(1, 300),
    SHARES,
    SHARES,
    st.booleans(),
)
def test_the_pixels_are_those_of_detectron2(seed, size, smoothness, height, width, x, y, whole):
    mask = probabilities(seed, size, smoothness)
    box = np.array([x[0] * width, y[0] * height, x[1] * width, y[1] * height], dtype=np.float32)
    if whole:  # pixels halfway between two values, and values at the border
        box = np.array([0, 0, width, height], dtype=np.float32)
    if (box[2:] - box[:2] > 1e-3).all():
        rle = paste(mask, box, height, width)
        found = masks.decode(rle)
        assert masks.encode(found) == rle
        different = found != pasted_by_detectron2(mask, box, height, width)
        # Rounding decides where the value is the threshold.
        values = interpolated(mask, box.astype(float), height, width)
        assert np.abs(values[different] - 0.5).max(initial=0) < 1e-5
        assert different.mean() < 0.01


@pytest.mark.parametrize("value", [0, 0.4999, 0.5001, 1])
def test_masks_of_one_value(value):
    mask = np.full((28, 28), value, dtype=np.float32)
    box = np.array([10, 5, 40, 45], dtype=np.float32)
    rle = paste(mask, box, 50, 60)
    assert rle == masks.encode(pasted_by_detectron2(mask, box, 50, 60))
    assert (masks.geometry(rle)["area"] > 0) == (value >= 0.5)


def test_a_large_image_takes_little_memory():
    mask = probabilities(1, 28, 3)
    box = np.array([50.5, 20.25, 8000, 6100], dtype=np.float32)
    paste(mask, box, 61, 81)  # compiled before
    tracemalloc.start()
    rle = paste(mask, box, 6144, 8160)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6144 * 8160 / 10
    # The same shape as at a tenth of the size.
    small = masks.geometry(paste(mask, box / 10, 614, 816))["area"]
    assert masks.geometry(rle)["area"] == pytest.approx(100 * small, rel=0.02)
