"""The formats by name."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from cuvler.coco.values import Refused
from cuvler.errors import DataError
from cuvler.export import coco, label_studio, pictures, tables, yolo
from cuvler.export.source import Source
from cuvler.export.tally import Tally

Writer = Callable[[Path, Source, Tally], AbstractContextManager[coco.Add]]
FORMATS: dict[str, Writer] = {
    "coco-polygons": coco.coco_polygons,
    "coco-rle": coco.coco_rle,
    "yolo": yolo.yolo,
    "label-studio": label_studio.label_studio,
    "cvat": coco.cvat,
    "label-masks": pictures.label_masks,
    "masks": pictures.masks,
    "csv": tables.boxes_csv,
    "parquet": tables.boxes_parquet,
}


def write(source: Source, name: str, output: Path) -> Tally:
    """Write a source in a format; the output is whole or not there.

    Args:
        source: what is written.
        name: a key of :data:`FORMATS`.
        output: the file, or the folder of formats that are one.

    Raises:
        DataError: the output cannot be written, or a folder of this name is not empty.
    """
    tally = Tally()
    with FORMATS[name](output, source, tally) as add:
        for group in source.groups():
            try:
                add(group)
            except Refused as reason:
                raise DataError(f"{source.path}: {reason}") from None
            tally.images += 1
    return tally
