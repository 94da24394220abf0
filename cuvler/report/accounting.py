"""Image statuses and mask statistics of an annotations file."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Annotation, Image, Needs, Section, read_coco
from cuvler.coco.refusals import refusal
from cuvler.coco.values import Refused, finite, shown
from cuvler.errors import DataError
from cuvler.image_status import ImageStatus

_NAMED = 20  # excluded images named on the page
_NEEDS = Needs(masks=True, raw=True)


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
    index = 0
    for item in read_coco(path, _NEEDS):
        if isinstance(item, Annotation):
            masks[item.image_id] += 1
            columns["size"].append(_relative_size(path, index, item))
            for name in ("score", "cluster_size", "crf_success"):
                if name in item.raw:
                    columns[name].append(_number(path, index, item, name))
            index += 1
        elif isinstance(item, Image):
            masks[item.id] += 0
        elif isinstance(item, Section) and item.name == "info":
            info = item.content if isinstance(item.content, dict) else {}
        elif isinstance(item, Section) and item.name == "summary":
            uniform = _uniform(path, item.content)
        elif isinstance(item, Section) and item.name == "excluded":
            status = item.content.get("status") if isinstance(item.content, dict) else None
            if not isinstance(status, str):
                raise DataError(f"{path}: 'excluded' has {shown(item.content)}, without a status")
            failures[status] += 1
            if len(excluded) < _NAMED:
                excluded.append(item.content)
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


def _number(path: Path, index: int, item: Annotation, name: str) -> float:
    value = item.raw[name]
    try:
        return finite(name, int(value) if isinstance(value, bool) else value)
    except Refused as reason:
        raise refusal(path, _NEEDS, index, item, reason) from None


def _relative_size(path: Path, index: int, record: Annotation) -> float:
    """Return the square root of a mask's share of its image."""
    if record.area is None or record.size is None:
        key = "area" if record.area is None else "size"
        raise refusal(path, _NEEDS, index, record, f"{key!r} is missing")
    width, height = record.size
    return math.sqrt(record.area / (height * width))


def _uniform(path: Path, summary: Any) -> int:
    """Return the number of uniform images of a summary."""
    images = summary.get("images") if isinstance(summary, dict) else None
    count = images.get(ImageStatus.UNIFORM, 0) if isinstance(images, dict) else None
    if type(count) is not int:
        raise DataError(f"{path}: 'summary' has no numbers of images: {shown(summary)}")
    return count
