"""Keep decoded images in memory, for trainings that open each of them many times."""

import math
import os
from collections.abc import Callable

from PIL import Image

from cuvler.files import StrPath


class DecodedImages:
    """Images decoded at a fraction of their size, by path and fraction.

    When the memory is used up none is replaced: in a random order, each is as likely to be wanted.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._images: dict[tuple[str, int], Image.Image] = {}

    def get(self, path: StrPath, scale: int, decode: Callable[[], Image.Image]) -> Image.Image:
        """Return the image decoded at 1 / scale of its size, by ``decode`` if it is not kept."""
        key = os.fspath(path), scale
        if key in self._images:
            return self._images[key]
        image = decode()
        num_bytes = 3 * math.prod(image.size)
        if num_bytes <= self._left:
            self._left -= num_bytes
            self._images[key] = image
        return image
