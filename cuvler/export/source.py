"""The records of a COCO json or of COCO results by image, in little memory."""

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cuvler.coco import Annotation
from cuvler.errors import DataError
from cuvler.files import StrPath, full_disk_named
from cuvler.listing import ListedImage
from cuvler.view.content import read_content

_IN_MEMORY = 1 << 26  # bytes of records from which they go to the disk


class Group(NamedTuple):
    """An image and what is exported of it.

    Attributes:
        image: its id, file name and size; if no file states the size, that of its masks, else None.
        records: best first if they have scores, otherwise as in the file.
    """

    image: ListedImage
    records: list[Annotation]


class Source:
    """What is exported: images, classes, and the records that were asked for.

    Attributes:
        path: the file.
        classes: names of the categories by id, in ascending order; only those asked for.
        info: the settings that made the file.
        left_out: number of images that have no usable picture.
    """

    def __init__(
        self,
        path: Path,
        *,
        ground_truth: Path | None = None,
        listing: Path | None = None,
        score_threshold: float = 0.0,
        detections_per_image: int | None = None,
        categories: Collection[str] = (),
        folder: StrPath | None = None,
    ) -> None:
        """Read the file once. Memory is that of the images and 16 bytes a record.

        Args:
            path: COCO annotations, pseudo-masks or COCO results.
            ground_truth: a COCO json that names the images and classes of results.
            listing: a listing that names the images of results, instead.
            score_threshold: smallest score; records without one are exported, too.
            detections_per_image: the number of records of an image with the highest scores.
            categories: names of those to export; by default all.
            folder: of the temporary file with the records; by default the system's.

        Raises:
            DataError: as for :func:`cuvler.view.content.read_content`, or there is no such
                category.
        """
        self.path = path
        self._threshold, self._most = score_threshold, detections_per_image
        self._image_ids = array("q")
        self._ends = array("q", [0])
        self._seen: set[int | None] = set()
        # Not removed by its name: nothing is left behind when the process is killed.
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (closed with self)
            _IN_MEMORY, dir=None if folder is None else os.fspath(folder)
        )
        weakref.finalize(self, self._file.close)
        with full_disk_named("a temporary file of records"):
            content = read_content(
                path,
                ground_truth=ground_truth,
                listing=listing,
                score_threshold=score_threshold,
                each=self._add,
            )
        self._images = content.images
        self.info = content.info
        self.left_out = len(content.left_out)
        self.classes = self._chosen(self._named(content.classes), categories)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def _add(self, record: Annotation) -> None:
        if record.score is not None and record.score < self._threshold:
            return
        self._seen.add(record.category_id)
        extra = {key: value for key, value in record.raw.items() if key not in _KNOWN}
        text = json.dumps([*record[:-1], extra], separators=(",", ":")).encode()
        self._file.write(text)
        self._image_ids.append(record.image_id)
        self._ends.append(self._ends[-1] + len(text))

    def _named(self, classes: dict[int, str]) -> dict[int, str]:
        """Return the names of all categories, also of those that no file names."""
        seen = {1 if number is None else number for number in self._seen}
        if not classes and seen <= {1}:  # class-agnostic
            return {1: "object"}
        return dict(sorted(({number: str(number) for number in seen} | classes).items()))

    def _chosen(self, classes: dict[int, str], names: Collection[str]) -> dict[int, str]:
        if unknown := set(names) - set(classes.values()):
            some = ", ".join(list(classes.values())[:10])
            raise DataError(
                f"{self.path}: no category {', '.join(map(repr, sorted(unknown)))}; it has {some}",
                parameter="category",
            )
        self._all = not names
        return {key: name for key, name in classes.items() if not names or name in names}

    def groups(self) -> Iterator[Group]:
        """Yield the images in their order, also those without records."""
        ids = np.asarray(self._image_ids)
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        wanted = np.fromiter(self._images, dtype=np.int64, count=len(self._images))
        starts = np.searchsorted(ids, wanted, side="left")
        ends = np.searchsorted(ids, wanted, side="right")
        for image, start, end in zip(self._images.values(), starts, ends, strict=True):
            records = [self._record(row) for row in order[start:end].tolist()]
            yield _group(image, self._selected(records))

    def _record(self, row: int) -> Annotation:
        start, end = self._ends[row], self._ends[row + 1]
        self._file.seek(start)
        values = json.loads(self._file.read(end - start))
        return Annotation(*_restored(values))

    def _selected(self, records: list[Annotation]) -> list[Annotation]:
        """Return the records of the categories asked for, best first, as many as asked for."""
        if not self._all:
            records = [record for record in records if self.class_id(record) in self.classes]
        records.sort(key=lambda record: -1.0 if record.score is None else -record.score)
        return records[: self._most]

    def class_id(self, record: Annotation) -> int:
        """Return a record's category, by default the only one."""
        return 1 if record.category_id is None else record.category_id

    def class_name(self, record: Annotation) -> str:
        """Return the name of a record's category."""
        return self.classes[self.class_id(record)]


# Keys of a record that are fields of an annotation; the others are kept as they are.
_KNOWN = frozenset(Annotation._fields)


def _restored(values: list[Any]) -> list[Any]:
    """Return a record's values, which were JSON, with tuples for its size and box."""
    for place in (Annotation._fields.index("size"), Annotation._fields.index("bbox")):
        if values[place] is not None:
            values[place] = tuple(values[place])
    return values


def _group(image: ListedImage, records: list[Annotation]) -> Group:
    """Return a group in which the image and its records have the same size."""
    size = image.size or next((record.size for record in records if record.size), None)
    if image.size is None and size:
        image = image._replace(size=size)
    return Group(image, [record._replace(size=size) for record in records])
