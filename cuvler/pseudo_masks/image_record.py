"""Pseudo-masks of one image of a shard, as records of the shard's file.

This module runs in worker processes. It imports neither zarr nor pandas, which halves the start-up
time of a worker.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler import masks
from cuvler.errors import ImageError
from cuvler.image_access import image_path
from cuvler.image_status import ImageStatus
from cuvler.images import Size, open_image
from cuvler.logs import printable
from cuvler.pseudo_masks.methods import Method
from cuvler.uniform import is_uniform

_NOT_READ = (ImageStatus.MISSING, ImageStatus.UNREADABLE, ImageStatus.WRONG_SIZE)


@dataclass(frozen=True)
class ImageTask:
    """An image and its eigenvectors.

    Attributes:
        image_id: from the listing.
        file_name: from the listing, relative to the image root.
        size: from the listing; determines the orientation in which the image is opened.
        status: the worst of the backbones' statuses.
        vectors: backbone -> (k, h, w), as the method needs; empty unless ``status`` is ``ok``.
    """

    image_id: int
    file_name: str
    size: Size | None
    status: ImageStatus
    vectors: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ImageRecord:
    """The records of one image in the shard's file.

    Attributes:
        image: ``id``, ``file_name``, ``width`` and ``height`` (None if it cannot be opened),
            ``status``, and ``reason`` if it could not be used.
        annotations: COCO records with RLE, best first.
        out_of_memory: whether the status is ``crashed`` for want of memory; not in the file.
    """

    image: dict[str, Any]
    annotations: list[dict[str, Any]]
    out_of_memory: bool = False


def find_masks(task: ImageTask, *, image_root: Path, method: Method) -> ImageRecord:
    """Compute the masks of one image; an unusable image gets a status and a reason."""
    path = image_path(image_root, task.file_name)
    try:
        image = open_image(path, task.size)
    except ImageError as error:
        # Remove the image root, which differs between machines.
        reason = str(error).removeprefix(f"{printable(path)}: ")
        reason = reason.replace(printable(path), printable(task.file_name))
        return failed(task, error.status, reason)
    if task.status in _NOT_READ:
        reason = "readable now, but not when its eigenvectors were extracted; extract them again"
        return failed(task, task.status, reason, image.size)
    # Before the solver's status: the graph of a uniform image has no eigenvectors worth the name.
    if is_uniform(image):
        return ImageRecord(_image(task, ImageStatus.UNIFORM, image.size), [])
    if task.status != ImageStatus.OK:
        return failed(task, task.status, "a backbone has no eigenvectors of it", image.size)
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
    task: ImageTask, status: ImageStatus, reason: str, size: Size | tuple[None, None] = (None, None)
) -> ImageRecord:
    """Return the record of an image without masks because of a failure."""
    return ImageRecord({**_image(task, status, size), "reason": reason}, [])


def _image(task: ImageTask, status: ImageStatus, size: Size | tuple[None, None]) -> dict[str, Any]:
    width, height = size
    names = {"id": task.image_id, "file_name": task.file_name}
    return {**names, "width": width, "height": height, "status": status}
