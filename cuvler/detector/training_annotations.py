"""Read a COCO json for training, into memory that all processes of a machine share."""

import pickle
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from detectron2.utils import comm
from numpy.typing import NDArray

from cuvler.coco import Annotation, Category, Image, Needs, read_coco
from cuvler.coco.values import Box
from cuvler.detector.processes import LocalRank
from cuvler.errors import DataError
from cuvler.files import StrPath
from cuvler.image_access import image_path

Record = dict[str, Any]
_WITH_CATEGORIES = ("images", "annotations", "categories")
_ARRAYS = ("pickled", "ends", "wide")


class Instance(NamedTuple):
    """The part of an annotation that training uses.

    Attributes:
        segmentation: COCO polygons, or compressed or uncompressed RLE.
        label: class index, from 0.
        score: soft target.
        bbox: x, y, width and height in pixels; None if the annotation has no box.
    """

    segmentation: Any
    label: int
    score: float
    bbox: Box | None


class Records(Sequence[Record]):
    """Records of the training images, pickled into one array that processes can share.

    Attributes:
        wide: (N,) bool, true for images wider than high.
    """

    def __init__(
        self, pickled: NDArray[np.uint8], ends: NDArray[np.int64], wide: NDArray[np.bool_]
    ) -> None:
        self._pickled = pickled
        self._ends = ends
        self.wide = wide

    @classmethod
    def pack(cls, records: Iterable[Record]) -> "Records":
        """Pickle each record into the array."""
        pickled, wide = [], []
        for record in records:
            pickled.append(pickle.dumps(record, protocol=-1))
            wide.append(record["width"] > record["height"])
        ends = np.cumsum([len(one) for one in pickled], dtype=np.int64)
        return cls(np.frombuffer(b"".join(pickled), np.uint8), ends, np.array(wide, dtype=bool))

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files, for :meth:`map`."""
        arrays: tuple[NDArray[Any], ...] = (self._pickled, self._ends, self.wide)
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def map(cls, folder: Path) -> "Records":
        """Memory-map the arrays written by :meth:`save`; the files may be deleted afterwards."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        end = int(self._ends[index])
        start = int(self._ends[index - 1]) if index % len(self) else 0
        record: Record = pickle.loads(self._pickled[start:end].data)  # noqa: S301 (our own)
        return record


@dataclass(frozen=True)
class Annotations:
    """Annotations of the training images.

    Attributes:
        records: one dict per image: file_name (with the image root), image_id, height, width, and
            instances, a list of :class:`Instance`.
        categories: (id, name) of the classes 0, 1, ...: the file's categories sorted by id, or
            (1, "object") if class-agnostic.
    """

    records: Records
    categories: tuple[tuple[int, str], ...]


def read_annotations(
    path: StrPath,
    image_root: StrPath,
    *,
    class_agnostic: bool = True,
    keep_empty: bool = False,
) -> Annotations:
    """Read a COCO json. The default score is 1; crowd annotations are left out.

    Args:
        path: the json, as ``cuvler annotations`` writes it or an official one.
        image_root: the folder that its file names start from.
        class_agnostic: map every category to one class, "object"; otherwise each category is a
            class, even without instances.
        keep_empty: whether to train on images without annotations.

    Raises:
        DataError: the file is not a COCO json, a record is invalid (see
            :func:`cuvler.coco.read_coco`), an annotation has no mask, an image no size, or there
            is no image to train on.
    """
    needs = Needs(
        sections=("images", "annotations") if class_agnostic else _WITH_CATEGORIES,
        file_names=True,
        sizes=True,
        masks=True,
        highest_score=1.0,
        categories=not class_agnostic,
    )
    images: list[Image] = []
    categories: list[tuple[int, str]] = []
    found: dict[int, list[Annotation]] = {}
    for record in read_coco(path, needs):
        if isinstance(record, Annotation):
            if not record.iscrowd:
                found.setdefault(record.image_id, []).append(record)
        elif isinstance(record, Image):
            images.append(record)
        elif isinstance(record, Category):
            categories.append((record.id, record.name))
    named = ((1, "object"),) if class_agnostic else tuple(sorted(categories))
    labels = {} if class_agnostic else {one: label for label, (one, _) in enumerate(named)}
    records = Records.pack(
        _record(
            image,
            image_path(image_root, str(image.file_name), source=path),
            found.get(image.id, []),
            labels,
        )
        for image in images
        if keep_empty or image.id in found
    )
    if not records:
        raise DataError(f"{path}: no annotated image to train on")
    return Annotations(records, named)


def _record(
    image: Image, path: Path, annotations: list[Annotation], labels: dict[int, int]
) -> Record:
    assert image.size is not None  # it is needed
    width, height = image.size
    return {
        "file_name": str(path),
        "image_id": image.id,
        "width": width,
        "height": height,
        "instances": [_instance(annotation, labels) for annotation in annotations],
    }


def _instance(annotation: Annotation, labels: dict[int, int]) -> Instance:
    score = 1.0 if annotation.score is None else annotation.score
    # Without labels there is a single class.
    label = labels[annotation.category_id or 0] if labels else 0
    box = annotation.bbox
    if box is not None:
        x, y, width, height = box
        box = float(x), float(y), float(width), float(height)
    return Instance(annotation.segmentation, label, score, box)


def read_shared_annotations(
    path: StrPath,
    image_root: StrPath,
    *,
    class_agnostic: bool = True,
    keep_empty: bool = False,
    local_rank: LocalRank,
) -> Annotations:
    """Call :func:`read_annotations` once per machine and share the result.

    The first process of each machine writes the records to temporary files, and every process
    maps them. All processes call this together.

    Args:
        path: see :func:`read_annotations`.
        image_root: see :func:`read_annotations`.
        class_agnostic: see :func:`read_annotations`.
        keep_empty: see :func:`read_annotations`.
        local_rank: of this process.
    """
    options = {"class_agnostic": class_agnostic, "keep_empty": keep_empty}
    if local_rank.size == 1:
        return read_annotations(path, image_root, **options)
    mine = None
    with tempfile.TemporaryDirectory(prefix="cuvler.annotations.") as folder:
        if local_rank.rank == 0:
            data = read_annotations(path, image_root, **options)
            data.records.save(Path(folder))
            mine = (folder, data.categories)
        # The folder differs between machines: take the one from this machine's first process.
        shared = comm.all_gather(mine)[comm.get_rank() - local_rank.rank]
        assert shared is not None
        records = Records.map(Path(shared[0]))
        comm.synchronize()
    return Annotations(records, shared[1])
