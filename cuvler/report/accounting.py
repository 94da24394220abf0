"""Image statuses and mask statistics of an annotations file."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.coco_json import stream_annotations
from cuvler.image_status import ImageStatus

_NAMED = 20  # excluded images named on the page


@dataclass(frozen=True)
class Accounting:
    """Statistics of one annotations file.

    Attributes:
        info: the settings that made it.
        statuses: status -> number of images: ``ok`` (with masks), ``no_mask``, and those of
            uniform and excluded images, if there are any.
        excluded: the first excluded images, with ``status`` and ``reason``.
        masks_per_image: (images,) int, of the usable images.
        sizes: (masks,), square root of mask area / image area, 0-1.
        scores: (masks,); empty unless every mask has one. The same holds for ``cluster_sizes`` and
            ``crf_success``, because self-training annotations mix voted masks and predictions.
    """

    info: dict[str, Any]
    statuses: dict[str, int]
    excluded: list[dict[str, Any]]
    masks_per_image: NDArray[np.int64]
    sizes: NDArray[np.float64]
    scores: NDArray[np.float64]
    cluster_sizes: NDArray[np.float64]
    crf_success: NDArray[np.float64]

    @property
    def num_images(self) -> int:
        """Number of images of any status."""
        return sum(self.statuses.values())

    @property
    def num_masks(self) -> int:
        """Number of masks."""
        return int(self.masks_per_image.sum())


def account(path: Path) -> Accounting:
    """Compute the statistics of an annotations file, reading it record by record.

    Raises:
        DataError: the file is missing or damaged.
    """
    info: dict[str, Any] = {}
    uniform = 0
    masks: Counter[int] = Counter()
    failures: Counter[str] = Counter()
    excluded: list[dict[str, Any]] = []
    columns: dict[str, list[float]] = {
        name: [] for name in ("size", "score", "cluster_size", "crf_success")
    }
    for section, item in stream_annotations(path):
        if section == "info":
            info = item
        elif section == "images":
            masks[item["id"]] += 0
        elif section == "excluded":
            failures[item["status"]] += 1
            if len(excluded) < _NAMED:
                excluded.append(item)
        elif section == "summary":
            uniform = item.get("images", {}).get(ImageStatus.UNIFORM, 0)
        elif section == "annotations":
            masks[item["image_id"]] += 1
            height, width = item["segmentation"]["size"]
            columns["size"].append((item["area"] / (height * width)) ** 0.5)
            for name in ("score", "cluster_size", "crf_success"):
                if name in item:
                    columns[name].append(float(item[name]))
    whole = {
        name: np.array(values if len(values) == len(columns["size"]) else [], dtype=np.float64)
        for name, values in columns.items()
    }
    counts = np.array(sorted(masks.values()), dtype=np.int64)
    statuses = {
        ImageStatus.OK: int((counts > 0).sum()),
        ImageStatus.NO_MASK: int((counts == 0).sum()) - uniform,
    }
    if uniform:
        statuses[ImageStatus.UNIFORM] = uniform
    return Accounting(
        info=info,
        statuses=statuses | dict(sorted(failures.items())),
        excluded=excluded,
        masks_per_image=counts,
        sizes=whole["size"],
        scores=whole["score"],
        cluster_sizes=whole["cluster_size"],
        crf_success=whole["crf_success"],
    )
