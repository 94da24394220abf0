"""Records that all converters yield: COCO images and annotations."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from cuvler.errors import DataError
from cuvler.images import image_size

Record = dict[str, Any]
# An image precedes its annotations. Annotations without an id are numbered later.
Records = Iterator[tuple[Literal["images", "annotations"], Record]]
Ids = Literal["order", "digits"]
# Hint appended to parse errors.
OTHER_FORMAT = "does the dataset's entry name the right format?"


def number(names: Sequence[str], ids: Ids) -> dict[str, int]:
    """Assign image ids to file names.

    Args:
        names: unique file names in order, with or without folder and extension.
        ids: ``digits`` concatenates the digits of a name (``000005`` is 5,
            ``ILSVRC2012_val_00000007`` is 201200000007); ``order`` numbers from 1.

    Raises:
        DataError: with ``digits``, a name has no digits, or two names have the same.
    """
    if ids == "order":
        return {name: index for index, name in enumerate(names, start=1)}
    numbers: dict[str, int] = {}
    taken: dict[int, str] = {}
    for name in names:
        digits = "".join(re.findall(r"[0-9]", Path(name).stem))
        if not digits or int(digits) in taken:
            problem = f"the same as {taken[int(digits)]}" if digits else "none"
            raise DataError(
                f"{name}: no unique image id from its digits ({problem}); set ids: order"
            )
        numbers[name] = int(digits)
        taken[int(digits)] = name
    return numbers


def image_sizes(image_root: Path, names: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield :func:`cuvler.images.image_size` of files under ``image_root``, in order.

    Raises:
        ImageError: see :func:`cuvler.images.image_size`; raised at the first such file.
    """
    # Threads: the time is spent waiting for the file system.
    with ThreadPoolExecutor(16) as pool:
        yield from pool.map(lambda name: image_size(image_root / name), names)


def box_record(
    image_id: int,
    corners: tuple[float, float, float, float],
    size: tuple[int, int],
    *,
    ignore: bool = False,
) -> Record | None:
    """Return the annotation of a box, clipped to its image.

    Args:
        image_id: of the image.
        corners: left, top, right and bottom edge in pixels.
        size: (width, height) of the image.
        ignore: mark as ``iscrowd``: neither a miss nor a false positive.

    Returns:
        The annotation without an id; None if the clipped box is empty.
    """
    left, top, right, bottom = corners
    width, height = size
    left, right = max(left, 0.0), min(right, float(width))
    top, bottom = max(top, 0.0), min(bottom, float(height))
    if right <= left or bottom <= top:
        return None
    box = [left, top, right - left, bottom - top]
    return {
        "image_id": image_id,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": int(ignore),
    }


class Locator:
    """Finds image files in folders laid out differently from the names in the annotations.

    Objects365 names ``images/v1/patch8/x.jpg``, often unpacked as ``patch8/x.jpg``.
    """

    def __init__(self, image_root: Path) -> None:
        self._root = image_root
        self._dropped = 0  # leading folders dropped for the previous file: tried first

    def find(self, name: str, *, folder: str = "") -> str:
        """Return a file's path relative to the image root, with leading folders dropped or added.

        Args:
            name: as in the annotations.
            folder: a folder that may contain the file.

        Returns:
            The first path that exists; ``name`` if none does, because the images need not be
            there.
        """
        parts = name.split("/")
        choices = ["/".join(parts[count:]) for count in range(len(parts))]
        likely = choices[min(self._dropped, len(parts) - 1)]
        for choice in (likely, *choices, *([f"{folder}/{name}"] if folder else [])):
            if (self._root / choice).is_file():
                if choice in choices:
                    self._dropped = choices.index(choice)
                return choice
        return name
