import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from cuvler.detector.copy_paste import Sample
from cuvler.detector.data import to_detectron2
from cuvler.detector.sample_sheet import draw_samples
from cuvler.drawing import PALETTE


def sample(height, width, boxes, outlines=None):
    """A grey image with a square mask for each (top, left, side)."""
    masks = np.zeros((len(boxes), height, width), dtype=bool)
    for mask, (top, left, side) in zip(masks, boxes, strict=True):
        mask[top : top + side, left : left + side] = True
    image = np.full((height, width, 3), 100, np.uint8)
    count = len(boxes)
    record = {"file_name": "grey.png", "image_id": 1}
    scores = np.linspace(1, 0.2, count, dtype=np.float32)
    classes = np.zeros(count, np.int64)
    return to_detectron2(Sample(image, masks, classes, scores, outlines), record)


def test_a_sheet_of_scaled_samples_with_boxes_and_masks():
    batch = [sample(90, 180, [(40, 20, 30), (10, 100, 60)]) for _ in range(9)]
    batch[1] = sample(60, 180, [])
    pixels = np.asarray(draw_samples(batch))
    # Four columns of 360 pixels, two rows of 180, six pixels between; the ninth is not drawn.
    assert pixels.shape == (2 * 186 + 6, 4 * 366 + 6, 3)
    first = pixels[6:186, 6:366]
    for index, (top, left, side) in enumerate([(80, 40, 60), (20, 200, 120)]):
        colour = np.array(PALETTE[index])
        for corner in ((top, left), (top + side - 1, left + side - 1)):
            assert (first[corner] == colour).all()
        inside = first[top + 45, left + 10 : left + side - 10]
        assert (inside == (100 * 0.6 + colour * 0.4).astype(np.uint8)).all()
    assert (first[170, 10] == 100).all()
    # Without instances, centred in its cell.
    second = pixels[6:186, 372:732]
    assert (second[30:150] == 100).all()
    assert (second[:30] == 255).all()


def test_a_single_high_sample():
    picture = draw_samples([sample(72, 36, [(0, 0, 36)])])
    assert picture.size == (180 + 12, 360 + 12)
    assert torch.from_numpy(np.array(picture)).unique().numel() > 3


def test_boxes_of_annotations_are_drawn():
    """One is looser than its mask, one is narrower than a pixel."""
    outlines = np.array([[10, 20, 80, 70], [150.2, 30, 150.3, 40]], dtype=np.float32)
    batch = [sample(90, 180, [(40, 20, 30), (10, 100, 60)], outlines)]
    pixels = np.asarray(draw_samples(batch))[6:186, 6:366]
    for corner in ((40, 20), (139, 159), (40, 159), (139, 20)):
        assert (pixels[corner] == PALETTE[0]).all()
    assert (pixels[60:80, 300] == PALETTE[1]).all()
