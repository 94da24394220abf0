"""Convert a detector's instances to COCO records."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cuvler import masks
from cuvler.predictions.pasting import paste

if TYPE_CHECKING:
    from detectron2.structures import Instances


def coco_records(
    image_id: int,
    instances: "Instances",
    categories: Sequence[tuple[int, str]],
    score_threshold: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Yield an image's predictions as COCO results, best first.

    As in the published results files, ``bbox`` is the box head's prediction, not the extent of the
    mask, and predictions with an empty mask are included: boxes and masks are scored separately.
    Scores are not rounded.

    Args:
        image_id: the image.
        instances: what :class:`cuvler.detector.Detector` or its ``detect`` returns; boxes lie
            within the image.
        categories: (id, name) of the classes 0, 1, ...
        score_threshold: minimum score of a prediction.
    """
    found = zip(
        instances.pred_boxes.tensor.numpy(),
        instances.scores.tolist(),
        instances.pred_classes.tolist(),
        strict=True,
    )
    encode = _encoder(instances)
    for index, (box, score, label) in enumerate(found):
        if score >= score_threshold:
            yield {
                "image_id": image_id,
                "category_id": categories[label][0],
                "segmentation": encode(index),
                "bbox": _coco_box(box),
                "score": score,
            }


def _encoder(instances: "Instances") -> Callable[[int], masks.Rle]:
    """Return a function that encodes the mask of a number, pasted or not."""
    if isinstance(instances.pred_masks, Tensor):
        whole = instances.pred_masks.numpy()
        return lambda index: masks.encode(whole[index])
    height, width = instances.image_size
    within, boxes = instances.pred_masks.tensor.numpy(), instances.pred_boxes.tensor.numpy()
    return lambda index: paste(within[index], boxes[index], height, width)


def _coco_box(box: NDArray[np.float32]) -> list[float]:
    """Convert x0 y0 x1 y1 to [x, y, width, height], with the fewest digits that keep the float32.

    Written as float64, boxes would have twice the digits, a tenth of the whole file.
    """
    return [float(str(side)) for side in (*box[:2], *(box[2:] - box[:2]))]


def as_coco_annotations(
    found: Sequence[tuple[str, tuple[int, int], "Instances"]],
    categories: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    """Return the predictions of a few images as COCO annotations.

    Args:
        found: file name, (width, height) and predictions of each image.
        categories: (id, name) of the classes 0, 1, ...

    Returns:
        ``images``, ``categories`` and ``annotations``, each of these with a ``score``; ids start
        at 1.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, (width, height), instances) in enumerate(found, start=1):
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for record in coco_records(image_id, instances, categories):
            area = masks.geometry(record["segmentation"])["area"]
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, "area": area, **record})
    named = [{"id": category, "name": name} for category, name in categories]
    return {"images": images, "categories": named, "annotations": annotations}
