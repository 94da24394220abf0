"""Open Images' table of boxes.

``IsGroupOf`` marks a box around more than five instances that touch each other. The data set's
evaluation (Kuznetsova et al., The Open Images Dataset V4, IJCV 2020) ignores detections inside such
a box, as COCO does with crowds, so they become crowds. ``IsDepiction`` (a drawing of the object)
and ``IsInside`` (a picture taken inside the object) count like other objects. -1 (unknown) is read
as 0.
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from cuvler.errors import DataError
from cuvler.ground_truth.source_records import Ids, Record, Records, box_record, image_sizes, number
from cuvler.images import EXTENSIONS

_COLUMNS = ("ImageID", "XMin", "XMax", "YMin", "YMax", "IsGroupOf")


def open_images_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read ``validation-annotations-bbox.csv``: corners relative to width and height.

    Args:
        annotations: the tables.
        images: the folder of ``{ImageID}.jpg``. All its images are listed, with or without a box,
            and sizes are read from them.
        ids: numbering of images; see :func:`cuvler.ground_truth.source_records.number`.

    Raises:
        DataError: a file is not such a table, or has boxes of an image that is not in the folder.
        ImageError: an image is unreadable.
    """
    names = sorted(
        entry.name for entry in os.scandir(images) if entry.name.lower().endswith(EXTENSIONS)
    )
    numbers = number(names, ids)
    known: dict[str, tuple[int, tuple[int, int]]] = {}
    for name, size in zip(names, image_sizes(images, names), strict=True):
        known[Path(name).stem] = (numbers[name], size)
        yield (
            "images",
            {
                "id": numbers[name],
                "file_name": name,
                "width": size[0],
                "height": size[1],
            },
        )
    absent: set[str] = set()
    for path in annotations:
        with path.open(encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream)
            missing = set(_COLUMNS) - set(table.fieldnames or ())
            if missing:
                raise DataError(f"{path}: lacks the columns {', '.join(sorted(missing))}")
            for row in table:
                if row["ImageID"] not in known:
                    absent.add(row["ImageID"])
                    continue
                record = _annotation(row, f"{path}, line {table.line_num}", known[row["ImageID"]])
                if record is not None:
                    yield "annotations", record
    if absent:
        raise DataError(
            f"{images}: {len(absent)} images with boxes are missing: "
            f"{', '.join(sorted(absent)[:5])}; download them, or remove their rows from the table"
        )


def _annotation(
    row: dict[str, str], where: str, image: tuple[int, tuple[int, int]]
) -> Record | None:
    image_id, (width, height) = image
    try:
        left, right, top, bottom = (float(row[key]) for key in ("XMin", "XMax", "YMin", "YMax"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: not a box: {row}") from error
    corners = (left * width, top * height, right * width, bottom * height)
    return box_record(image_id, corners, (width, height), ignore=row["IsGroupOf"] == "1")
