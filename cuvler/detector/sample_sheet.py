"""Draw a few training samples after augmentation: resizing, flipping and copy-paste."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from cuvler.detector.data import Batch
from cuvler.drawing import PALETTE, draw_masks
from cuvler.masks import resize

_CELL = 360
_COLUMNS = 4
_ROWS = 2
_GAP = 6


def draw_samples(batch: Batch) -> Image.Image:
    """Draw the first eight samples of a batch with their boxes, masks and scores.

    Args:
        batch: see :class:`cuvler.detector.data.TrainingBatches`.

    Returns:
        A sheet of two rows, each sample scaled to a longest side of 360 pixels.
    """
    pictures = [_draw_sample(sample) for sample in batch[: _COLUMNS * _ROWS]]
    # The images of a batch are all wide or all high.
    width = max(picture.width for picture in pictures) + _GAP
    height = max(picture.height for picture in pictures) + _GAP
    columns, rows = min(len(pictures), _COLUMNS), -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, _COLUMNS)
        left = column * width + (width + _GAP - picture.width) // 2
        top = row * height + (height + _GAP - picture.height) // 2
        sheet.paste(picture, (left, top))
    return sheet


def _draw_sample(sample: dict[str, Any]) -> Image.Image:
    instances = sample["instances"]
    image = Image.fromarray(np.ascontiguousarray(sample["image"].numpy().transpose(1, 2, 0)))
    factor = _CELL / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    masks = [resize(mask, height, width) for mask in instances.gt_masks.tensor.numpy()]
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    drawn = draw_masks(image, masks, instances.gt_scores.tolist())
    draw = ImageDraw.Draw(drawn)
    for index, (x0, y0, x1, y1) in enumerate((instances.gt_boxes.tensor * factor).tolist()):
        # An annotation's box may be narrower than a pixel.
        draw.rectangle(
            (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=PALETTE[index % len(PALETTE)]
        )
    return drawn
