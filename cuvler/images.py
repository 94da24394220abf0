"""Opening an image the same way everywhere."""

import errno
import struct
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

from PIL import ExifTags, Image

from cuvler.errors import ImageError
from cuvler.files import StrPath
from cuvler.image_status import ImageStatus

T = TypeVar("T")

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
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # Width and height change places.


def open_image(path: StrPath) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    EXIF orientation is applied, so that masks, boxes and annotations mean the picture as
    people see it (detectron2 reads images the same way). Alpha is dropped, palettes and
    16-bit values are mapped to 8 bits, and of an animation the first frame is taken.

    Raises:
        ImageError: ``missing`` or ``unreadable``, with the reason. Unreadable are also images
            of more than 179 million pixels, Pillow's limit: they are refused by their header.
        OSError: this process has too many open files or too little memory.
    """
    return _read_patiently(_read, path)


def image_size(path: StrPath) -> tuple[int, int]:
    """Give the (width, height) of what :func:`open_image` would give, without decoding it.

    Raises:
        ImageError, OSError: as :func:`open_image`, for what the header says.
    """
    return _read_patiently(_read_size, path)


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


def _read(path: StrPath) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns of broken EXIF, and of images between one and two times its limit.
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return _to_rgb(_upright(image))


def _read_size(path: StrPath) -> tuple[int, int]:
    with Image.open(path, formats=_FORMATS) as image:
        width, height = image.size
        # Pillow decodes a whole PNG to look for an orientation behind its pixels, where almost
        # none has one.
        known = image.format != "PNG" or "exif" in image.info or "xmp" in image.info
        return (height, width) if known and _orientation(image) in _SIDEWAYS else (width, height)


def _upright(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose also writes the EXIF anew, and fails where another tag is broken.
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


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
