"""Opening an image the same way everywhere."""

import errno
import struct
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from PIL import ExifTags, Image

from cuvler.errors import ImageError
from cuvler.files import StrPath
from cuvler.image_status import ImageStatus

T = TypeVar("T")
Size = tuple[int, int]  # width, height in pixels

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
# Whatever a file is called, Pillow looks at its first bytes. Of the formats it knows some are
# programs (EPS is run by Ghostscript) or are read by little-used decoders.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# What Pillow's decoders raise on files that are not what they seem. It promises OSError, but
# changing bytes brings up the others too.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)
# Network file systems fail and recover: seconds to wait before trying again.
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
_PATIENCE = (1, 5, 20)
# The machine's fault, not the image's.
_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_UPRIGHT: dict[int | None, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # Width and height change places.


def open_image(path: StrPath, size: Size | None = None) -> Image.Image:
    """Open an image as 8-bit RGB, upright, or as it is stored where its annotations mean that.

    EXIF orientation is applied, so that masks, boxes and annotations mean the picture as
    people see it (detectron2 reads images the same way). Some annotations were written for the
    stored pixels all the same: where their size fits those and not the upright image, EXIF
    orientation is not applied. Alpha is dropped, palettes and 16-bit values are mapped to 8
    bits, and of an animation the first frame is taken.

    Args:
        path: the file.
        size: what the image's annotations say, :func:`stated_size`; None where there are none.

    Raises:
        ImageError: ``missing``, ``unreadable`` or ``wrong_size`` (``size`` fits neither way),
            with the reason. Unreadable are also images of more than 179 million pixels, Pillow's
            limit: they are refused by their header.
        OSError: this process has too many open files or too little memory.
    """
    return _read_patiently(partial(_read, size=size), path)


def image_size(path: StrPath, size: Size | None = None) -> Size:
    """Give the (width, height) of what :func:`open_image` would give, without decoding it.

    Args:
        path: the file.
        size: as for :func:`open_image`.

    Raises:
        ImageError, OSError: as :func:`open_image`, for what the header says.
    """
    return _read_patiently(partial(_read_size, size=size), path)


def stated_size(image: Mapping[str, Any]) -> Size | None:
    """Give the size that a COCO image record states, or None where it states none."""
    sides = image.get("width"), image.get("height")
    if not all(isinstance(side, int | float) and side >= 1 for side in sides):
        return None
    return int(image["width"]), int(image["height"])


def _read_patiently(read: Callable[[StrPath], T], path: StrPath) -> T:
    try:
        for seconds in _PATIENCE:
            try:
                return read(path)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
                time.sleep(seconds)
        return read(path)
    except FileNotFoundError:
        raise ImageError(ImageStatus.MISSING, f"{path}: no such file") from None
    except Image.DecompressionBombError as error:
        reason = f"too large, scale it down: {error}"
        raise ImageError(ImageStatus.UNREADABLE, f"{path}: {reason}") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        reason = str(error) or type(error).__name__
        raise ImageError(ImageStatus.UNREADABLE, f"{path}: {reason}") from error


def _read(path: StrPath, size: Size | None) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns of broken EXIF, and of images between one and two times its limit.
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            # ImageOps.exif_transpose also writes the EXIF anew, and fails where another tag is
            # broken.
            turn = _UPRIGHT.get(_turn(path, image.size, _orientation(image), size))
            return _to_rgb(image if turn is None else image.transpose(turn))


def _read_size(path: StrPath, size: Size | None) -> Size:
    with Image.open(path, formats=_FORMATS) as image:
        # Pillow decodes a whole PNG to look for an orientation behind its pixels, where almost
        # none has one.
        known = image.format != "PNG" or "exif" in image.info or "xmp" in image.info
        turn = _turn(path, image.size, _orientation(image) if known else None, size)
        return _turned(image.size, turn)


def _turn(path: StrPath, stored: Size, orientation: int | None, size: Size | None) -> int | None:
    """Decide which EXIF orientation to apply: the image's own or none, by its annotations' size."""
    upright = _turned(stored, orientation)
    if size is None or size == upright:
        return orientation
    if size == stored:
        return None
    found, said = (f"{width} x {height}" for width, height in (upright, size))
    raise ImageError(
        ImageStatus.WRONG_SIZE, f"{path}: is {found} pixels, its annotations say {said}"
    )


def _turned(stored: Size, orientation: int | None) -> Size:
    return stored[::-1] if orientation in _SIDEWAYS else stored


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return None  # Viewers, too, show an image whose EXIF cannot be read as it is stored.


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16-bit values at 255 instead of scaling them.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
