"""Image statuses and mask statistics of an annotations file."""

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Annotation, Image, Item, Needs, Section, read_coco
from cuvler.coco.refusals import refusal
from cuvler.coco.values import LARGEST, Refused, finite, shown
from cuvler.errors import DataError
from cuvler.image_status import ImageStatus
from cuvler.report import charts

_NAMED = 20  # excluded images named on the page
_OPTIONAL = ("score", "cluster_size", "crf_success")  # of a mask
_PLAIN = (float, int, bool)
NEEDS = Needs(masks=True, raw=True)


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


def account(path: Path, items: Iterable[Item] | None = None) -> Accounting:
    """Compute the statistics of an annotations file, reading it record by record.

    Args:
        path: the file.
        items: its content, read with :data:`NEEDS`; by default read here.

    Raises:
        DataError: the file is missing or damaged.
    """
    counts = _Counts(path)
    for item in read_coco(path, NEEDS) if items is None else items:
        if isinstance(item, Annotation):
            counts.add_mask(item)
        elif isinstance(item, Image):
            counts.images += 1
        elif isinstance(item, Section):
            counts.add_section(item)
    return counts.accounting()


class _Counts:
    """The statistics of a file while it is read: arrays, because masks can be many millions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = 0
        self._info: dict[str, Any] = {}
        self._uniform = 0
        self._failures: Counter[str] = Counter()
        self._excluded: list[dict[str, Any]] = []
        self._image_ids = array("q")
        self._columns = {name: array("d") for name in ("size", *_OPTIONAL)}
        self._optional = [(name, self._columns[name]) for name in _OPTIONAL]

    def add_mask(self, item: Annotation) -> None:
        index = len(self._image_ids)
        self._image_ids.append(item.image_id)
        self._columns["size"].append(_relative_size(self.path, index, item))
        raw = item.raw
        for name, values in self._optional:
            if name in raw:
                value = raw[name]
                # Common values here, which is faster.
                if type(value) not in _PLAIN or not -LARGEST <= value <= LARGEST:
                    value = _number(self.path, index, item, name)
                values.append(value)

    def add_section(self, item: Section) -> None:
        content = item.content
        if item.name == "info":
            self._info = content if isinstance(content, dict) else {}
        elif item.name == "summary":
            self._uniform = _uniform(self.path, content)
        elif item.name == "excluded":
            status = content.get("status") if isinstance(content, dict) else None
            if not isinstance(status, str):
                raise DataError(f"{self.path}: 'excluded' has {shown(content)}, without a status")
            self._failures[status] += 1
            if len(self._excluded) < _NAMED:
                self._excluded.append(content)

    def accounting(self) -> Accounting:
        masks = len(self._image_ids)
        _, counts = np.unique(np.asarray(self._image_ids), return_counts=True)
        empty = np.zeros(self.images - len(counts), dtype=np.int64)
        statuses = {
            ImageStatus.OK: len(counts),
            ImageStatus.NO_MASK: len(empty) - self._uniform,
        }
        if self._uniform:
            statuses[ImageStatus.UNIFORM] = self._uniform
        whole = {
            name: np.asarray(values if len(values) == masks else array("d"))
            for name, values in self._columns.items()
        }
        return Accounting(
            info=self._info,
            statuses=statuses | dict(sorted(self._failures.items())),
            excluded=self._excluded,
            masks_per_image=np.concatenate([empty, np.sort(counts)]),
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
        raise refusal(path, NEEDS, index, item, reason) from None


def _relative_size(path: Path, index: int, record: Annotation) -> float:
    """Return the square root of a mask's share of its image."""
    if record.area is None or record.size is None:
        key = "area" if record.area is None else "size"
        raise refusal(path, NEEDS, index, record, f"{key!r} is missing")
    width, height = record.size
    return math.sqrt(record.area / (height * width))


def _uniform(path: Path, summary: Any) -> int:
    """Return the number of uniform images of a summary."""
    images = summary.get("images") if isinstance(summary, dict) else None
    count = images.get(ImageStatus.UNIFORM, 0) if isinstance(images, dict) else None
    if type(count) is not int:
        raise DataError(f"{path}: 'summary' has no numbers of images: {shown(summary)}")
    return count


def account_section(what: str, counted: Accounting) -> dict[str, Any]:
    """Return the image statuses and mask histograms of one annotations file."""
    shares = (0.0, 1.0)
    refined = counted.crf_success
    marked = ("not refined", refined == 0) if refined.size else None
    size = "\N{SQUARE ROOT}(mask area / image area)"
    columns = [
        ("Masks per image", "masks", "images", counted.masks_per_image, None, None),
        ("Mask size", size, "masks", counted.sizes, shares, marked),
        ("Score", "score", "masks", counted.scores, shares, None),
        ("Cluster size", "proposals", "masks", counted.cluster_sizes, None, None),
    ]
    drawn = {}
    for title, label, unit, values, limits, part in columns:
        if values.size:
            alt = f"{title}, {what}: histogram of {values.size:,} {unit}, mean {values.mean():.3g}"
            alt += f"; {part[1].sum():,} of them {part[0]}" if part else ""
            drawn[title] = charts.histogram(
                values, label, unit, alt=alt, limits=limits, marked=part
            )
    facts = {"images": f"{counted.num_images:,}", "masks": f"{counted.num_masks:,}"}
    if counted.masks_per_image.size:
        facts["masks per image"] = f"{counted.masks_per_image.mean():.2f}"
    if refined.size:
        facts["refined by the CRF"] = f"{100 * refined.mean():.1f} %"
    settings = json.dumps(counted.info, indent=2, ensure_ascii=False) if counted.info else ""
    return {
        "statuses": counted.statuses,
        "excluded": counted.excluded,
        "charts": drawn,
        "facts": facts,
        "settings": settings,
    }
