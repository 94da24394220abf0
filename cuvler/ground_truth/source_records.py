"""What every converter yields: images, and the objects in them, as COCO has them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from cuvler.errors import DataError
from cuvler.images import image_size

Record = dict[str, Any]
# An image comes before the annotations on it. Annotations may lack an id; they get one.
Records = Iterator[tuple[Literal["images", "annotations"], Record]]
Ids = Literal["order", "digits"]
# What to ask who gave a file that cannot be read as what it should be.
OTHER_FORMAT = "is this the format the dataset's entry says?"


def number(names: Sequence[str], ids: Ids) -> dict[str, int]:
    """Give each file name (unique, in order) an image id.

    Args:
        names: with or without folder and extension.
        ids: ``digits`` joins the digits of a name (``000005`` is 5, ``ILSVRC2012_val_00000007``
            is 201200000007); ``order`` counts from 1.

    Raises:
        DataError: ``digits``, and a name has none or two names have the same.
    """
    if ids == "order":
        return {name: index for index, name in enumerate(names, start=1)}
    numbers: dict[str, int] = {}
    taken: dict[int, str] = {}
    for name in names:
        digits = "".join(re.findall(r"[0-9]", Path(name).stem))
        if not digits or int(digits) in taken:
            clash = f"those of {taken[int(digits)]}" if digits else "none"
            raise DataError(f"{name}: its digits give no image id ({clash}); set ids: order")
        numbers[name] = int(digits)
        taken[int(digits)] = name
    return numbers


def image_sizes(root: Path, names: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Give :func:`cuvler.images.image_size` of many files under ``root``, in order.

    Raises:
        ImageError: as :func:`image_size`, at the first file that has no size.
    """
    # Waiting for a network's disk is what takes the time.
    with ThreadPoolExecutor(16) as pool:
        yield from pool.map(lambda name: image_size(root / name), names)


def box_record(
    image_id: int,
    corners: tuple[float, float, float, float],
    size: tuple[int, int],
    *,
    ignore: bool = False,
) -> Record | None:
    """Make an annotation of a box, clipped to its image.

    Args:
        image_id: of the image.
        corners: left, top, right and bottom edge in pixels.
        size: (width, height) of the image.
        ignore: neither to be found nor held against a detector that finds it. COCO's
            ``iscrowd``: detections that lie mostly in it are left out of the count.

    Returns:
        The annotation without an id; None where nothing of the box lies in the image.
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
    """Finds the files that annotations name, where a data set is unpacked a little differently.

    Objects365 names ``images/v1/patch8/x.jpg`` for what is often kept as ``patch8/x.jpg``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._dropped = 0  # leading folders; what suited the last file suits the next

    def find(self, name: str, *, folder: str = "") -> str:
        """Give the file's name relative to the root: as named, or with other leading folders.

        Args:
            name: as the annotations have it.
            folder: a folder the file may lie in.

        Returns:
            The first that exists; ``name`` where none does, as the images may lie elsewhere.
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
