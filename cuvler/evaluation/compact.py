"""Annotations or results in compact form: numbers in arrays, masks in a temporary file.

Memory is 73 bytes a record, with or without a mask: 0.6 GB for the 8 million detections of 80,000
images. Their masks take as much of the disk as in COCO json, some gigabytes.
"""

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Annotation
from cuvler.coco.records import NOTHING
from cuvler.coco.values import Refused
from cuvler.files import StrPath
from cuvler.masks import Rle, run_sums

IouType = Literal["bbox", "segm"]
Rows = NDArray[np.intp]
_IN_MEMORY = 1 << 26  # bytes of masks from which they go to the disk


class CompactRecords:
    """Records of one file, kept in its order and read back by image.

    Attributes:
        has_masks: whether any record has a mask.
    """

    def __init__(self, iou_types: Sequence[IouType], folder: StrPath | None) -> None:
        """Start without records.

        Args:
            iou_types: what is scored; the rest of a record is not kept.
            folder: of the temporary file of masks; by default the system's.
        """
        self.has_masks = False
        self._iou_types = iou_types
        self._image_ids = array("q")
        self._category_ids = array("q")
        self._scores = array("d")
        self._areas = array("d")
        self._crowds = array("b")
        self._boxes = array("d")
        self._mask_ends = array("q", [0])
        self._masks = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (closed with self)
            _IN_MEMORY, dir=None if folder is None else os.fspath(folder)
        )
        weakref.finalize(self, self._masks.close)

    def __len__(self) -> int:
        return len(self._image_ids)

    def add(self, record: Annotation) -> dict[IouType, Refused]:
        """Add a record; return why it has no box or no mask, if these are scored."""
        refused: dict[IouType, Refused] = {}
        self.has_masks |= record.segmentation is not None
        self._image_ids.append(record.image_id)
        self._category_ids.append(record.category_id or 0)
        self._scores.append(np.nan if record.score is None else record.score)
        self._areas.append(np.nan if record.area is None else record.area)
        self._crowds.append(record.iscrowd)
        if "bbox" in self._iou_types:
            try:
                self._boxes.extend(record.box())
            except Refused as reason:
                refused["bbox"] = reason
                self._boxes.extend((0, 0, 0, 0))
        if "segm" in self._iou_types:
            try:
                self._add_mask(record)
            except Refused as reason:
                refused["segm"] = reason
                self._mask_ends.append(self._mask_ends[-1])
        return refused

    def _add_mask(self, record: Annotation) -> None:
        if record.segmentation is None:
            raise Refused("no 'segmentation'; score boxes only (IoU type bbox)")
        rle = record.rle()
        height, width = rle["size"]
        text = f"{height} {width} {rle['counts']}".encode("ascii")
        self._masks.write(text)
        self._mask_ends.append(self._mask_ends[-1] + len(text))

    def flush(self) -> None:
        """Write what is buffered; errors of a full disk appear here."""
        self._masks.flush()

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        """(n,) image ids; no record can be added from here on."""
        return np.asarray(self._image_ids)

    @cached_property
    def crowds(self) -> NDArray[np.bool_]:
        """(n,) whether a record is a crowd."""
        return np.array(self._crowds, dtype=bool)

    @cached_property
    def _by_image(self) -> tuple[Rows, NDArray[np.int64]]:
        """The rows by image, then as in the file, and their image ids."""
        order = np.argsort(self.image_ids, kind="stable")
        return order, self.image_ids[order]

    def rows_of(self, image_ids: Sequence[int]) -> Rows:
        """Return the rows of some images: by image, then as in the file.

        Args:
            image_ids: in ascending order, without leaving out an image that has records.
        """
        order, ids = self._by_image
        start = np.searchsorted(ids, image_ids[0], side="left")
        return order[start : np.searchsorted(ids, image_ids[-1], side="right")]

    def categories(self, rows: Rows) -> NDArray[np.int64]:
        """Return the category ids of some rows."""
        return np.asarray(self._category_ids)[rows]

    def scores(self, rows: Rows) -> NDArray[np.float64]:
        """Return the scores of some rows; 1 where a record has none."""
        scores = np.asarray(self._scores)[rows]
        return np.where(np.isnan(scores), 1.0, scores)

    def boxes(self, rows: Rows) -> NDArray[np.float64]:
        """Return the boxes of some rows, (rows, 4): x, y, width and height in pixels."""
        return np.asarray(self._boxes).reshape(-1, 4)[rows]

    def masks(self, rows: Rows) -> list[Rle]:
        """Return the masks of some rows, which all have one."""
        return [_rle(text) for text in self._texts(rows)]

    def annotations(self, rows: Rows) -> list[Annotation]:
        """Return some rows as records, without ids and categories, with masks in RLE."""
        found = []
        columns = (
            self.image_ids[rows].tolist(),
            self._texts(rows),
            self.boxes(rows).tolist(),
            np.asarray(self._scores)[rows].tolist(),
            self.crowds[rows].tolist(),
        )
        for image_id, text, box, score, crowd in zip(*columns, strict=True):
            rle = _rle(text) if text else None
            size = (rle["size"][1], rle["size"][0]) if rle else None
            scored = None if score != score else score
            of_image = None, image_id, size, None
            found.append(
                Annotation(*of_image, rle, None, tuple(box), None, scored, crowd, False, NOTHING)
            )
        return found

    def _texts(self, rows: Rows) -> Iterator[bytes]:
        ends = np.asarray(self._mask_ends)
        return self._read(ends[rows].tolist(), ends[rows + 1].tolist())

    def _read(self, starts: list[int], ends: list[int]) -> Iterator[bytes]:
        """Yield parts of the temporary file, read at once if they are close to each other."""
        low, high = min(starts, default=0), max(ends, default=0)
        if high - low <= 2 * (sum(ends) - sum(starts)):
            self._masks.seek(low)
            block = self._masks.read(high - low)
            yield from (
                block[start - low : end - low] for start, end in zip(starts, ends, strict=True)
            )
            return
        for start, end in zip(starts, ends, strict=True):
            self._masks.seek(start)
            yield self._masks.read(end - start)

    def areas(self, rows: Rows, iou_type: IouType) -> NDArray[np.float64]:
        """Return the areas of some rows: as stated, by default those of the boxes or masks."""
        areas = np.asarray(self._areas)[rows]
        (absent,) = np.nonzero(np.isnan(areas))
        if iou_type == "bbox":
            areas[absent] = self.boxes(rows[absent])[:, 2:].prod(axis=1)
        else:
            for place, rle in zip(absent, self.masks(rows[absent]), strict=True):
                sums = run_sums(rle["counts"])
                assert sums is not None  # our own encoding
                areas[place] = sums[1]
        return areas


def _rle(text: bytes) -> Rle:
    height, width, counts = text.decode("ascii").split(" ", 2)
    return {"size": [int(height), int(width)], "counts": counts}
