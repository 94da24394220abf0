"""Images and records to draw, out of COCO files of any size."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Annotation, Image, Item, Needs, read_coco
from cuvler.images import Size
from cuvler.listing import ListedImage

Sizes = Mapping[int, Size | None]  # (width, height) by image id
Records = dict[int, list[Annotation]]  # by image id
_SHOWN = 12  # masks drawn per picture
DRAWN = Needs(format="either", sections=("annotations",), listed=False)
_LISTED = Needs(sections=("images",), file_names=True)


def best_records(path: Path, sizes: Sizes, *, score_threshold: float = 0.0) -> Records:
    """Return the highest-scoring records of some images, by image id.

    Crowds are skipped; records without scores keep their order and are not limited in number.

    Args:
        path: COCO results or annotations.
        sizes: image id -> (width, height), None if unknown, of the images.
        score_threshold: records with a lower score are left out.

    Raises:
        DataError: the file is of neither format, or a record is invalid; see
            :func:`cuvler.coco.read_coco`.
    """
    found: Records = {}
    for record in read_coco(path, DRAWN, sizes=sizes, quiet=True):
        if (
            isinstance(record, Annotation)
            and record.image_id in sizes
            and is_drawn(record, score_threshold)
        ):
            found.setdefault(record.image_id, []).append(record)
    return {image_id: best(records) for image_id, records in found.items()}


def is_drawn(record: Annotation, score_threshold: float) -> bool:
    """Return whether a record is neither a crowd nor below the threshold."""
    return not record.iscrowd and (record.score is None or record.score >= score_threshold)


def best(records: list[Annotation]) -> list[Annotation]:
    """Return the records of an image to draw: if all have scores, the highest-scoring ones."""
    if any(record.score is None for record in records):
        return records
    return sorted(records, key=lambda record: -(record.score or 0.0))[:_SHOWN]


def coco_images(path: Path) -> dict[int, ListedImage]:
    """Return the images of a COCO json by id.

    Raises:
        DataError: the file or an image is invalid; see :func:`cuvler.coco.read_coco`.
    """
    return {
        image.id: ListedImage(image.id, str(image.file_name), image.size)
        for image in read_coco(path, _LISTED, only=("images",), quiet=True)
        if isinstance(image, Image)
    }


def evenly_spread(ids: Sequence[int] | NDArray[np.int64], count: int) -> list[int]:
    """Return ``count`` ids from evenly spread positions, or all if there are fewer."""
    count = min(count, len(ids))
    return [int(ids[(2 * number + 1) * len(ids) // (2 * count)]) for number in range(count)]


class ImageTable:
    """The images of a COCO json in compact form: 24 bytes each, and their names."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._sizes = array("i")
        self._names = bytearray()
        self._name_ends = array("q", [0])

    def add(self, image: Image) -> None:
        """Add an image, which has a file name."""
        self._ids.append(image.id)
        self._sizes.extend(image.size or (0, 0))
        self._names += str(image.file_name).encode()
        self._name_ends.append(len(self._names))

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        ids = np.asarray(self._ids)
        order = np.argsort(ids)
        return order, ids[order]

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) ids, ascending; no image can be added from here on."""
        return self._sorted[1]

    def __getitem__(self, image_id: int) -> ListedImage:
        order, ids = self._sorted
        row = int(order[np.searchsorted(ids, image_id)])
        start, end = self._name_ends[row : row + 2]
        width, height = self._sizes[2 * row : 2 * row + 2]
        name = bytes(self._names[start:end]).decode()
        return ListedImage(image_id, name, (width, height) if width else None)

    def sizes(self) -> dict[int, Size | None]:
        """Return the (width, height) of all images by id, None where unknown."""
        pairs = zip(self._sizes[::2], self._sizes[1::2], strict=True)
        return {i: size if size[0] else None for i, size in zip(self._ids, pairs, strict=True)}


class Shown:
    """The images of a gallery, spread evenly over the first file that is read.

    Attributes:
        table: all images of that file.
        images: those of the gallery by id; empty until that file's images are read.
    """

    def __init__(self, count: int) -> None:
        self.table: ImageTable | None = None
        self.images: dict[int, ListedImage] = {}
        self._count = count

    @property
    def sizes(self) -> Sizes:
        """Image id -> (width, height) of the gallery's images."""
        return {number: image.size for number, image in self.images.items()}

    def watch(
        self, items: Iterable[Item], found: Records, score_threshold: float = 0.0
    ) -> Iterator[Item]:
        """Pass the items of a file on, and collect the records of the gallery's images.

        Args:
            items: of the file; those of the first one have file names.
            found: gets the records to draw, once the iteration is complete.
            score_threshold: records with a lower score are not drawn.
        """
        table = ImageTable() if self.table is None else None
        for item in items:
            if isinstance(item, Annotation):
                if table is not None and self.table is None:
                    self._choose(table)  # images precede annotations
                if item.image_id in self.images and is_drawn(item, score_threshold):
                    found.setdefault(item.image_id, []).append(item)
            elif table is not None and isinstance(item, Image):
                table.add(item)
            yield item
        if table is not None and self.table is None:
            self._choose(table)
        for image_id, records in found.items():
            found[image_id] = best(records)

    def _choose(self, table: ImageTable) -> None:
        self.table = table
        chosen = evenly_spread(table.ids, self._count)
        self.images = {number: table[number] for number in chosen}
