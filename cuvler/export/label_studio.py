"""Label Studio: tasks with predictions, of which the masks are brush strokes.

Brush strokes are RGBA pixels in the run-length encoding of @thi.ng/rle-pack.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Annotation
from cuvler.coco.writer import json_text
from cuvler.export.coco import EMPTY, Add
from cuvler.export.source import Group, Source
from cuvler.export.tally import Tally
from cuvler.files import atomic_path
from cuvler.masks import decode

_CROWDS = "crowds, which the format does not know"
_NO_SIZE = "objects of images of unknown size"
_LOCAL = "/data/local-files/?d="  # Label Studio's own address of files of its machine
_CHANNELS = 4
_WORD = 8  # bits of a value
_SIZES = (3, 4, 8, 16)  # bits of the length of a run, by class
_LONGEST = 2 ** _SIZES[-1]


@contextmanager
def label_studio(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write a list of tasks, one an image, each with one prediction."""
    version = str(source.info.get("method") or source.path.stem)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("[")

        def add(group: Group) -> None:
            image, records = group
            regions = [
                _region(record, source.class_name(record), f"{image.image_id}_{place}")
                for place, record in enumerate(_drawable(records, tally))
            ]
            tally.records += len(regions)
            scores = [record.score for record in records if record.score is not None]
            prediction: dict[str, Any] = {"model_version": version, "result": regions}
            if scores:
                prediction["score"] = sum(scores) / len(scores)
            task = {
                "data": {"image": _LOCAL + quote(image.file_name)},
                "meta": {"image_id": image.image_id},
                "predictions": [prediction] if regions else [],
            }
            stream.write((",\n" if tally.images else "\n") + json_text(task))

        yield add
        stream.write("\n]\n")


def _drawable(records: list[Annotation], tally: Tally) -> Iterator[Annotation]:
    for record in records:
        if record.iscrowd:
            tally.left_out[_CROWDS] += 1
        elif record.size is None:
            tally.left_out[_NO_SIZE] += 1
        elif record.pixels == 0:
            tally.left_out[EMPTY] += 1
        else:
            yield record


def _region(record: Annotation, name: str, number: str) -> dict[str, Any]:
    rle = record.rle()
    height, width = rle["size"]
    value = {"format": "rle", "rle": brush_rle(decode(rle)), "brushlabels": [name]}
    region = {
        "id": number,
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
    return region if record.score is None else region | {"score": record.score}


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a (height, width) mask as Label Studio's brush: the bytes of a bit stream.

    The stream has the number of values in 32 bits; in 5 the bits of a value less 1; four times in 4
    the bits of a run's length less 1; then runs: a bit 1, the class of its length in 2 bits, its
    length less 1, and the value.
    """
    pixels = mask.ravel()
    (changes,) = np.nonzero(pixels[1:] != pixels[:-1])
    starts = np.concatenate(([0], changes + 1))
    lengths = np.diff(starts, append=pixels.size) * _CHANNELS
    values = pixels[starts] * (2**_WORD - 1)
    # Longer runs become several: whole ones first.
    parts = -(-lengths // _LONGEST)
    runs = np.full(parts.sum(), _LONGEST)
    runs[np.cumsum(parts) - 1] = lengths - (parts - 1) * _LONGEST
    values = np.repeat(values, parts)
    kind = np.searchsorted(2 ** np.array(_SIZES), runs)
    bits = np.array(_SIZES)[kind]
    code = ((((4 + kind) << bits) | (runs - 1)) << _WORD) | values
    header = [(pixels.size * _CHANNELS, 32), (_WORD - 1, 5), *((size - 1, 4) for size in _SIZES)]
    numbers, widths = (np.array(column, dtype=np.int64) for column in zip(*header, strict=True))
    return _packed(np.append(numbers, code), np.append(widths, 3 + bits + _WORD))


def _packed(numbers: NDArray[np.int64], widths: NDArray[np.int64]) -> list[int]:
    """Return the bytes of numbers one after another, each with its most significant bit first."""
    places = np.arange(widths.max())
    shifts = widths[:, None] - 1 - places
    bits = (numbers[:, None] >> np.maximum(shifts, 0)) & 1
    packed: list[int] = np.packbits(bits[shifts >= 0].astype(np.uint8)).tolist()
    return packed
