"""The form of training annotations that processes map into memory: an Arrow file.

It has two Arrow streams. The first has one row per instance, in the order of the json; the second
one row per image, with the numbers of its instances' rows. Mapped columns are read in place:
processes and machines that train together, and their data-loading processes, share one copy.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cuvler.coco.values import Box, Size
from cuvler.errors import DataError
from cuvler.files import StrPath

Record = dict[str, Any]
Origin = dict[str, Any]
_ROWS = 1 << 14  # of a record batch; the last one of a stream may have fewer
_INSTANCES = pa.schema(
    [
        ("label", pa.int32()),
        ("score", pa.float64()),
        ("bbox", pa.list_(pa.float64(), 4)),  # null: the mask's
        ("counts", pa.large_string()),  # of compressed RLE; null: polygons
        ("polygons", pa.large_list(pa.large_list(pa.float64()))),
    ]
)
_IMAGES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.large_string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("instances", pa.list_(pa.int64())),
    ]
)


class Instance(NamedTuple):
    """The part of an annotation that training uses.

    Attributes:
        segmentation: COCO polygons or RLE.
        label: class index, from 0.
        score: soft target.
        bbox: x, y, width and height in pixels; None if the annotation has no box.
    """

    segmentation: Any
    label: int
    score: float
    bbox: Box | None


class TrainingWriter:
    """Writes images and their instances in any order; yielded by :func:`write_training_file`."""

    def __init__(self, sink: pa.NativeFile) -> None:
        self._sink = sink
        self._stream = pa.ipc.new_stream(sink, _INSTANCES)
        self._instances: list[tuple[Any, ...]] = []
        self._image_of = array("q")
        self._images: list[tuple[int, str, int, int]] = []
        self._image_batches: list[pa.RecordBatch] = []

    def add_image(self, image_id: int, path: str, size: Size) -> None:
        """Add an image of (width, height)."""
        self._images.append((image_id, path, *size))
        if len(self._images) == _ROWS:
            self._end_image_batch()

    def _end_image_batch(self) -> None:
        if self._images:
            columns = [*zip(*self._images, strict=True)]
            fields = list(_IMAGES)[: len(columns)]
            self._image_batches.append(_batch(columns, pa.schema(fields)))
            self._images.clear()

    def add_instance(self, image_id: int, instance: Instance) -> None:
        """Add an instance of an image."""
        mask, label, score, box = instance
        counts, polygons = (None, mask) if isinstance(mask, list) else (mask["counts"], None)
        self._instances.append((label, score, box, counts, polygons))
        self._image_of.append(image_id)
        if len(self._instances) == _ROWS:
            self._end_instance_batch()

    def _end_instance_batch(self) -> None:
        if self._instances:
            self._stream.write_batch(_batch(zip(*self._instances, strict=True), _INSTANCES))
            self._instances.clear()

    def end(self, origin: Origin, categories: Sequence[tuple[int, str]], keep_empty: bool) -> int:
        """Write the images; without ``keep_empty`` only those with instances.

        Returns:
            The number of images written.
        """
        self._end_instance_batch()
        self._end_image_batch()
        self._stream.close()
        images = pa.Table.from_batches(self._image_batches, pa.schema(list(_IMAGES)[:4]))
        self._image_batches.clear()
        rows, counts = self._rows_by_image(images["image_id"].to_numpy())
        if not keep_empty:
            images, counts = images.filter(counts > 0), counts[counts > 0]
        ends = np.cumsum(counts)
        schema = _IMAGES.with_metadata(
            {"origin": json.dumps(origin), "categories": json.dumps(categories)}
        )
        with pa.ipc.new_stream(self._sink, schema) as stream:
            for start in range(0, len(counts), _ROWS):
                offsets = np.append(0, ends)[start : start + _ROWS + 1]
                mine = pa.array(rows[offsets[0] : offsets[-1]])
                lists = pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), mine)
                block = images.slice(start, _ROWS).append_column(_IMAGES.field(4), lists)
                stream.write_batch(*block.combine_chunks().to_batches())
        return len(counts)

    def _rows_by_image(
        self, image_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the instances' rows, sorted by image, and how many each image has."""
        order = np.argsort(image_ids)
        found = np.frombuffer(self._image_of, dtype=np.int64)
        images = order[np.searchsorted(image_ids, found, sorter=order)]
        return np.argsort(images, kind="stable"), np.bincount(images, minlength=len(image_ids))


def _batch(columns: Any, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array(column, one.type) for column, one in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


@contextmanager
def write_training_file(path: StrPath) -> Iterator[TrainingWriter]:
    """Write a file; the caller adds all images and instances and calls ``end``."""
    with pa.OSFile(str(path), "wb") as sink:
        yield TrainingWriter(sink)


class Records(Sequence[Record]):
    """Records of the training images in a mapped file; the file may be deleted afterwards.

    A record has the image's ``file_name`` (with the image root), ``image_id``, ``width`` and
    ``height`` in pixels, and ``instances``, a list of :class:`Instance`.

    Attributes:
        path: the file.
        origin: what the file was made from.
        categories: (id, name) of the classes 0, 1, ...
        num_instances: number of all images' instances.
        wide: (N,) bool, true for images wider than high.
    """

    def __init__(self, path: StrPath) -> None:
        """Map a file.

        Raises:
            DataError: it is missing or damaged.
        """
        self.path = Path(path)
        try:
            source = pa.memory_map(str(path))
            self._instances = [*pa.ipc.open_stream(source)]
            stream = pa.ipc.open_stream(source)
            self._images = [*stream]
            metadata = stream.schema.metadata
            self.origin: Origin = json.loads(metadata[b"origin"])
            self.categories = tuple(
                (one, name) for one, name in json.loads(metadata[b"categories"])
            )
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: damaged ({error}); delete it and run again to recreate it"
            ) from error
        self.num_instances = sum(batch.num_rows for batch in self._instances)
        sides = [(one["width"].to_numpy(), one["height"].to_numpy()) for one in self._images]
        self.wide: NDArray[np.bool_]
        self.wide = np.concatenate([width > height for width, height in sides] or [[]]).astype(bool)

    def __reduce__(self) -> tuple[type["Records"], tuple[Path]]:
        # Started processes map the file; a copy would take as much memory again.
        return Records, (self.path,)

    def __len__(self) -> int:
        return len(self.wide)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        record = _row(self._images, range(len(self))[index], _IMAGES.names)
        size = [record["height"], record["width"]]
        record["instances"] = [self._instance(row, size) for row in record["instances"]]
        return record

    def _instance(self, row: int, size: list[int]) -> Instance:
        found = _row(self._instances, row, _INSTANCES.names)
        mask = found["polygons"]
        if mask is None:
            mask = {"size": size, "counts": found["counts"]}
        box = found["bbox"]
        return Instance(mask, found["label"], found["score"], tuple(box) if box else None)


def _row(batches: list[pa.RecordBatch], row: int, names: list[str]) -> Record:
    number, place = divmod(row, _ROWS)
    columns = batches[number].columns
    return {name: column[place].as_py() for name, column in zip(names, columns, strict=True)}
