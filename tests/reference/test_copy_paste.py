"""Copy-paste against the published code's results for the same images, factors and offsets.

Masks, scores and boxes are the same. Pixels may differ by 1 of 255: the published code truncates
what it interpolates in floating point.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("detectron2")

from cuvler.detector.copy_paste import Sample, paste
from cuvler.files import read_json

GOLDEN = Path(__file__).parent / "copy_paste"
CASES = read_json(GOLDEN / "copy_paste.json")


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN / "copy_paste.npz") as stored:
        return dict(stored)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["case"]))
def test_the_same_image_masks_scores_and_boxes(arrays, case):
    golden = {
        name.partition("/")[2]: array
        for name, array in arrays.items()
        if name.startswith(f"{case['case']}/")
    }

    def sample(name):
        masks = golden[f"{name}_masks"]
        classes = np.zeros(len(masks), dtype=np.int64)
        return Sample(golden[f"{name}_image"], masks, classes, golden[f"{name}_scores"])

    pasted = paste(
        sample("target"), sample("source"), factor=case["factor"], x=case["x"], y=case["y"]
    )
    np.testing.assert_array_equal(pasted.masks, golden["masks"])
    np.testing.assert_array_equal(pasted.scores, golden["scores"])
    np.testing.assert_array_equal(pasted.boxes, golden["boxes"])
    difference = pasted.image.astype(int) - golden["image"]
    assert np.abs(difference).max() <= 1
    assert len(pasted.masks) == case["existing"] + case["pasted"]
