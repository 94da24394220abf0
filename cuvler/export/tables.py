"""Tables of boxes, one row a record: CSV and Parquet."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cuvler.export.coco import Add
from cuvler.export.source import Group, Source
from cuvler.export.tally import Tally
from cuvler.files import atomic_path

_SCHEMA = pa.schema(
    {
        "image_id": pa.int64(),
        "file_name": pa.string(),
        "image_width": pa.int32(),
        "image_height": pa.int32(),
        "category_id": pa.int64(),
        "category": pa.string(),
        "score": pa.float64(),
        "x": pa.float64(),
        "y": pa.float64(),
        "width": pa.float64(),
        "height": pa.float64(),
        "iscrowd": pa.bool_(),
    }
)
_ROWS = 50_000  # of a row group


def _rows(group: Group, source: Source, tally: Tally) -> Iterator[tuple[object, ...]]:
    image, records = group
    named = image.image_id, image.file_name, *(image.size or (None, None))
    tally.records += len(records)
    for record in records:
        about = source.class_id(record), source.class_name(record), record.score
        yield *named, *about, *map(float, record.box()), record.iscrowd


@contextmanager
def boxes_csv(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write a CSV; an unknown score or size is an empty cell."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream)
        rows.writerow(_SCHEMA.names)
        yield lambda group: rows.writerows(_rows(group, source, tally))


@contextmanager
def boxes_parquet(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write a Parquet file; an unknown score or size is null."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, _SCHEMA) as writer:
        rows: list[tuple[object, ...]] = []

        def write() -> None:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
            ]
            writer.write_table(pa.table(columns, schema=_SCHEMA))
            rows.clear()

        def add(group: Group) -> None:
            rows.extend(_rows(group, source, tally))
            if len(rows) >= _ROWS:
                write()

        yield add
        if rows:
            write()
