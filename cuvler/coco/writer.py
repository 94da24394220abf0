"""Writing COCO json one record at a time."""

import json
import logging
import shutil
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from cuvler.coco.values import INT64, Refused, refused, shown
from cuvler.files import StrPath, atomic_path

logger = logging.getLogger(__name__)


class AnnotationWriter:
    """Writes images and annotations incrementally; yielded by :func:`write_annotations`.

    Attributes:
        num_annotations: number of annotations added so far.
        closing: sections written after the annotations, at the end of the block.
    """

    def __init__(self, images: TextIO, annotations: TextIO) -> None:
        self._images = images
        self._annotations = annotations
        self._num_images = 0
        self.num_annotations = 0
        self.closing: dict[str, Any] = {}

    def add_image(self, image: Mapping[str, Any]) -> None:
        """Write an image's record."""
        self._images.write(("," if self._num_images else "") + json_text(image))
        self._num_images += 1

    def add_annotation(self, annotation: Mapping[str, Any]) -> None:
        """Write an annotation's record."""
        self._annotations.write(("," if self.num_annotations else "") + json_text(annotation))
        self.num_annotations += 1


@contextmanager
def write_annotations(path: StrPath, opening: Mapping[str, Any]) -> Iterator[AnnotationWriter]:
    """Write COCO annotations atomically, as one compact line, without keeping them in memory.

    Args:
        path: the file to write.
        opening: sections written before ``images`` (``info``, ``categories``...).
    """
    # Images and annotations arrive interleaved; annotations are collected in a temporary file,
    # because they follow the images in the output.
    with (
        atomic_path(path) as temporary,
        tempfile.TemporaryFile("w+", dir=temporary.parent, encoding="utf-8") as annotations,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        stream.write(json_text(opening).removesuffix("}") + ',"images":[')
        writer = AnnotationWriter(stream, annotations)
        yield writer
        stream.write('],"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, stream)
        stream.write("]")
        for section, content in writer.closing.items():
            stream.write(f",{json_text(section)}:{json_text(content)}")
        stream.write("}\n")


def json_text(value: object) -> str:
    """Return a value as compact JSON.

    Raises:
        Refused: a key that is copied, and has no rule, has no form in JSON, such as NaN.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise _without_form(value) from error


def _without_form(value: object) -> Refused:
    """Return the error for the first key of a record that has no form in JSON."""
    for key, part in value.items() if isinstance(value, Mapping) else ():
        try:
            json.dumps(part, allow_nan=False)
        except (ValueError, RecursionError):
            return refused(key, part, "what JSON can hold, without NaN or infinite numbers")
    return Refused(f"{shown(value)} has no form in JSON")


class AnnotationIds:
    """Gives every annotation that is written a unique id: its own, if it can be kept.

    Attributes:
        renumbered: number of annotations with an id that another one had.
    """

    def __init__(self) -> None:
        self.renumbered = 0
        # Most files number annotations in order: 8 bytes for each of these, and a set for others.
        self._ascending = array("q")
        self._others: set[int] = set()
        self._largest = 0

    def unique(self, number: int | None) -> int:
        """Return the id, or, if it is missing or taken, the one after the largest so far."""
        if number is None or self._is_taken(number):
            self.renumbered += number is not None
            number = self._largest + 1
        if self._largest < number <= INT64:
            self._ascending.append(number)
        else:
            self._others.add(number)
        self._largest = max(self._largest, number)
        return number

    def _is_taken(self, number: int) -> bool:
        if number > self._largest:
            return False
        place = bisect_left(self._ascending, number)
        return self._ascending[place : place + 1] == array("q", [number]) or number in self._others

    def log(self, name: StrPath) -> None:
        """Log how many annotations have a new id."""
        if self.renumbered:
            logger.warning(
                "%s: %d annotations have the id of another; they got new ids", name, self.renumbered
            )
