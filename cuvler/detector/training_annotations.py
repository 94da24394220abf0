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

from cuvler.coco_json import is_finite
from cuvler.detector.processes import LocalRank
from cuvler.errors import DataError
from cuvler.files import StrPath, read_json
from cuvler.image_access import image_path
from cuvler.images import stated_size

Record = dict[str, Any]
Box = tuple[float, float, float, float]
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
        DataError: the file is not a COCO json or has no image to train on.
    """
    content = read_json(path)
    try:
        named = sorted(
            (one["id"], str(one.get("name", one["id"]))) for one in content["categories"]
        )
        classes = {one: 0 if class_agnostic else index for index, (one, _) in enumerate(named)}
        instances = _instances(content["annotations"], classes)
        records = Records.pack(
            {
                "file_name": str(image_path(image_root, image["file_name"], source=path)),
                "image_id": image["id"],
                **_sides(image),
                "instances": instances.get(image["id"], []),
            }
            for image in content["images"]
            if keep_empty or image["id"] in instances
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a COCO annotation file ({error!r})") from error
    if not records:
        raise DataError(f"{path}: no annotated image to train on")
    return Annotations(records, ((1, "object"),) if class_agnostic else tuple(named))


def _sides(image: Record) -> dict[str, int]:
    size = stated_size(image)
    if size is None:
        raise ValueError(
            f"image {image['id']}: width {image.get('width')} and height {image.get('height')} "
            "are not sides in pixels"
        )
    return dict(zip(("width", "height"), size, strict=True))


def _instances(annotations: list[Record], classes: dict[int, int]) -> dict[int, list[Instance]]:
    instances: dict[int, list[Instance]] = {}
    for annotation in annotations:
        if not annotation.get("iscrowd", 0):
            instances.setdefault(annotation["image_id"], []).append(
                Instance(
                    annotation["segmentation"],
                    classes[annotation["category_id"]],
                    float(annotation.get("score", 1.0)),
                    _bbox(annotation),
                )
            )
    return instances


def _bbox(annotation: Record) -> Box | None:
    box = annotation.get("bbox")
    if box is None:
        return None
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))):
        raise ValueError(f"annotation {annotation.get('id')}: bbox {box} is not four numbers")
    x, y, width, height = (float(value) for value in box)
    return x, y, width, height


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
