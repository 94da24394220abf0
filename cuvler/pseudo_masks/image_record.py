"""One image of a shard, from its eigenvectors to what the shard's file holds of it.

This is the part that runs in worker processes, so it imports neither zarr nor pandas: starting a
worker takes half as long.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler import masks
from cuvler.errors import ImageError
from cuvler.image_status import ImageStatus
from cuvler.images import open_image
from cuvler.pseudo_masks.methods import Method

_Size = tuple[int, int] | tuple[None, None]


@dataclass(frozen=True)
class ImageTask:
    """One image to find masks in.

    Attributes:
        image_id: from the listing.
        file_name: from the listing, relative to the dataset's root.
        status: the worst word that any backbone's file has for the image.
        vectors: backbone -> (k, h, w) eigenvectors; empty unless ``status`` is ``ok``.
    """

    image_id: int
    file_name: str
    status: ImageStatus
    vectors: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ImageRecord:
    """What the shard's file holds of one image.

    Attributes:
        image: ``id``, ``file_name``, ``width`` and ``height`` (None where it cannot be opened),
            ``status``, and ``reason`` where the status is neither ``ok`` nor ``no_mask``.
        annotations: COCO records with RLE, best first.
    """

    image: dict[str, Any]
    annotations: list[dict[str, Any]]


def find_masks(task: ImageTask, *, root: Path, method: Method) -> ImageRecord:
    """Find one image's masks; an image that cannot be used gets its status and the reason."""
    path = root / task.file_name
    try:
        image = open_image(path)
    except ImageError as error:
        # Roots differ between machines; the accounting must not.
        reason = str(error).removeprefix(f"{path}: ").replace(str(path), task.file_name)
        return failed(task, error.status, reason)
    if task.status in (ImageStatus.MISSING, ImageStatus.UNREADABLE):
        reason = "it can be read now, but not when its eigenvectors were extracted: extract again"
        return failed(task, task.status, reason, image.size)
    if task.status != ImageStatus.OK:
        return failed(task, task.status, "a backbone has no eigenvector for it", image.size)
    found = method.masks(image, task.vectors)
    annotations = []
    for mask in found:
        rle = masks.encode(mask.mask)
        annotations.append(
            {
                "image_id": task.image_id,
                "segmentation": rle,
                **masks.geometry(rle),
                "score": mask.score,
                "cluster_size": mask.cluster_size,
                "crf_success": mask.crf_success,
            }
        )
    status = ImageStatus.OK if found else ImageStatus.NO_MASK
    return ImageRecord(_image(task, status, image.size), annotations)


def failed(
    task: ImageTask, status: ImageStatus, reason: str, size: _Size = (None, None)
) -> ImageRecord:
    """Account for an image that has no masks because something went wrong."""
    return ImageRecord({**_image(task, status, size), "reason": reason}, [])


def _image(task: ImageTask, status: ImageStatus, size: _Size) -> dict[str, Any]:
    width, height = size
    names = {"id": task.image_id, "file_name": task.file_name}
    return {**names, "width": width, "height": height, "status": status}
