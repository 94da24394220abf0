"""Images: listing a dataset into shards, and opening an image the same way everywhere."""

import os
import warnings
from pathlib import Path

from PIL import Image, ImageOps

from cuvler.errors import ImageError


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    EXIF orientation is applied, so that masks, boxes and annotations mean the picture as
    people see it (detectron2 reads images the same way). Alpha is dropped, palettes and
    16-bit values are mapped to 8 bits, and of an animation the first frame is taken.

    Raises:
        ImageError: ``missing`` or ``unreadable``, with the reason.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns of images between one and two times its bomb limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ImageError("missing", f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError("unreadable", f"{path}: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16-bit values at 255 instead of scaling them.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def image_path(root: str | os.PathLike[str], file_name: str) -> Path:
    """The path of a listed image: ``file_name`` is relative to the dataset's root."""
    return Path(root) / file_name
