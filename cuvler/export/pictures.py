"""PNG files: label masks as in Pascal VOC, or one file a mask."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.coco import Annotation
from cuvler.coco.values import Size
from cuvler.errors import DataError
from cuvler.export.coco import EMPTY, Add
from cuvler.export.folders import file_for
from cuvler.export.source import Group, Source
from cuvler.export.tally import Tally
from cuvler.files import atomic_folder
from cuvler.masks import decode

_CROWD = _VOID = 255
_MOST = 254  # objects or classes; 0 is the background
_MANY = f"objects beyond the {_MOST} best of an image"
_NO_SIZE = "images of unknown size, without objects"
_UNKNOWN = "objects of images of unknown size"


@contextmanager
def label_masks(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write ``SegmentationClass/``, ``SegmentationObject/`` and ``labelmap.txt``.

    The value of a pixel is the place of its class in ``labelmap.txt``, or the number of its object,
    best first; 0 is the background, and 255 a crowd. Where masks overlap, the better one is seen.

    Raises:
        DataError: there are more than 254 classes.
    """
    if len(source.classes) > _MOST:
        raise DataError(
            f"{source.path}: has {len(source.classes)} categories; label masks can have {_MOST}, "
            "choose some of them",
            parameter="category",
        )
    numbers = {key: place for place, key in enumerate(source.classes, start=1)}
    palette = pascal_palette()
    with atomic_folder(path) as folder:
        names = ["background", *source.classes.values()]
        colours = np.reshape(palette, (-1, 3)).tolist()
        (folder / "labelmap.txt").write_text(
            "".join(
                f"{name}:{','.join(map(str, colour))}::\n"
                for name, colour in zip(names, colours, strict=False)
            ),
            encoding="utf-8",
        )

        def add(group: Group) -> None:
            image, records = group
            if image.size is None:
                tally.left_out[_UNKNOWN if records else _NO_SIZE] += len(records) or 1
                return
            objects = _distinct(records, tally)
            classes = [numbers[source.class_id(record)] for record in objects]
            layers = {
                "SegmentationClass": classes,
                "SegmentationObject": [*range(1, len(objects) + 1)],
            }
            for name, values in layers.items():
                picture = Image.fromarray(_painted(objects, values, image.size))
                picture.putpalette(palette)
                picture.save(file_for(folder / name, image.file_name, ".png"))

        yield add


def _distinct(records: list[Annotation], tally: Tally) -> list[Annotation]:
    """Return the objects that are painted, best first, crowds last."""
    crowds = [record for record in records if record.iscrowd]
    others = [record for record in records if not record.iscrowd and record.pixels != 0]
    tally.left_out += {
        EMPTY: len(records) - len(crowds) - len(others),
        _MANY: max(len(others) - _MOST, 0),
    }
    found = others[:_MOST] + crowds
    tally.records += len(found)
    return found


def _painted(objects: list[Annotation], values: list[int], size: Size) -> NDArray[np.uint8]:
    width, height = size
    canvas = np.zeros((height, width), dtype=np.uint8)
    for record, value in zip(reversed(objects), reversed(values), strict=True):
        canvas[decode(record.rle())] = _CROWD if record.iscrowd else value
    return canvas


def pascal_palette() -> list[int]:
    """Return Pascal VOC's 256 colours: the bits of a number, spread over red, green and blue."""
    number = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.int64)
    for shift in range(8):
        for channel in range(3):
            palette[:, channel] |= ((number >> (3 * shift + channel)) & 1) << (7 - shift)
    found: list[int] = palette.ravel().tolist()
    return found


@contextmanager
def masks(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write a folder an image with one PNG a mask (0 and 255), and ``masks.csv`` about all."""
    with (
        atomic_folder(path) as folder,
        (folder / "masks.csv").open("w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream)
        rows.writerow(["file", "image_id", "image", "category", "score", "iscrowd"])

        def add(group: Group) -> None:
            image, records = group
            place = file_for(folder, image.file_name, "")
            for number, record in enumerate(records):
                if record.size is None:
                    tally.left_out[_UNKNOWN] += 1
                    continue
                place.mkdir(exist_ok=True)
                file = place / f"{number:03d}.png"
                Image.fromarray(decode(record.rle()).view(np.uint8) * 255).save(file)
                about = [image.image_id, image.file_name, source.class_name(record), record.score]
                name = file.relative_to(folder).as_posix()
                rows.writerow([name, *about, int(record.iscrowd)])
                tally.records += 1

        yield add
