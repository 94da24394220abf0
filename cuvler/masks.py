"""Binary masks as COCO run-length encodings."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


class Rle(TypedDict):
    """COCO's compressed run-length encoding, with ``counts`` as text so that JSON holds it."""

    size: list[int]
    counts: str


def encode(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask of shape (height, width), bool or 0/1."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: Rle) -> NDArray[np.bool_]:
    """Decode to a bool array of shape (height, width)."""
    decoded: NDArray[np.bool_] = coco_mask.decode(rle).astype(bool)
    return decoded


def geometry(rle: Rle) -> dict[str, Any]:
    """Give ``bbox`` ([x, y, width, height] in pixels) and ``area`` (pixels) as COCO has them."""
    return {
        "bbox": [float(value) for value in coco_mask.toBbox(rle)],
        "area": int(coco_mask.area(rle)),
    }
