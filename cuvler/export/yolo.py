"""YOLO segmentation, as Ultralytics reads it: a text file an image, one outline a line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from cuvler.coco import Annotation
from cuvler.coco.values import Size
from cuvler.errors import DataError
from cuvler.export.coco import EMPTY, Add
from cuvler.export.folders import file_for
from cuvler.export.outlines import Ring, inset, one_ring, pieces
from cuvler.export.source import Group, Source
from cuvler.export.tally import Tally
from cuvler.files import atomic_folder
from cuvler.masks import decode

_CROWDS = "crowds, which the format does not know"
_NO_SIZE = "objects of images of unknown size"
_LISTING = "images.txt"
_DIGITS = 6  # of coordinates from 0 to 1
# Ultralytics cuts coordinates to whole numbers and fills with OpenCV, which includes the outline:
# moved by a little, lines on the right and below are in the mask's last pixels.
_INSET = 0.05


@contextmanager
def yolo(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write ``labels/``, ``images.txt`` and ``data.yaml``; ``images`` is left to the user.

    A line has one outline: pieces and holes of a mask are on bridges, lines passed once in each
    direction. An image without objects has an empty file. Scores have no place in the format.
    """
    numbers = {key: place for place, key in enumerate(source.classes)}
    with atomic_folder(path) as folder:
        names = dict(enumerate(source.classes.values()))
        # Without "path", names in data.yaml are relative to its own folder.
        settings = {"train": _LISTING, "val": _LISTING, "names": names}
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        (folder / "data.yaml").write_text(text, encoding="utf-8")
        with (folder / _LISTING).open("w", encoding="utf-8") as listing:

            def add(group: Group) -> None:
                image, records = group
                if len(image.file_name.splitlines()) > 1:
                    raise DataError(
                        f"{source.path}: file_name {image.file_name!r} has a line break, but the "
                        f"format lists images in lines; rename the file"
                    )
                lines = []
                for record in records:
                    ring = _ring(record, tally)
                    if ring is not None and image.size:
                        number = numbers[source.class_id(record)]
                        lines.append(_line(number, ring, image.size, record, tally))
                tally.records += len(lines)
                label = file_for(folder / "labels", image.file_name, ".txt")
                label.write_text("".join(lines), encoding="utf-8")
                listing.write(f"./images/{image.file_name}\n")

            yield add


def _ring(record: Annotation, tally: Tally) -> Ring | None:
    """Return a record's outline in pixels; None if it is left out, which is counted."""
    reason = ""
    if record.iscrowd:
        reason = _CROWDS
    elif record.size is None:
        reason = _NO_SIZE
    elif isinstance(record.segmentation, list):
        return one_ring([np.reshape(part, (-1, 2)) for part in record.segmentation])
    elif found := pieces(decode(record.rle())):
        rings = [ring for piece in found for ring in (piece.outer, *piece.holes)]
        return one_ring([inset(ring, _INSET) for ring in rings])
    tally.left_out[reason or EMPTY] += 1
    return None


def _line(number: int, ring: Ring, size: Size, record: Annotation, tally: Tally) -> str:
    shares = np.clip(ring / size, 0, 1).round(_DIGITS)
    written = (shares * size).ravel().tolist()
    tally.measure(record.rle(), [written], size)
    return f"{number} {' '.join(map('{:.6g}'.format, shares.ravel().tolist()))}\n"
