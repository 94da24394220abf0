"""Opening images, with the same colours, orientation and errors everywhere."""

import errno
import math
import os
import stat
import struct
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cuvler.decoded_images import DecodedImages
from cuvler.errors import ImageError
from cuvler.extras import MissingExtraError, require_extra
from cuvler.files import StrPath
from cuvler.image_access import max_pixels
from cuvler.image_status import ImageStatus

_T = TypeVar("_T")
Size = tuple[int, int]  # width, height in pixels

# HEIC and HEIF are the photographs of phones.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
# Pillow detects the format from the content, whatever the extension. Excluded are formats that are
# programs (EPS is run by Ghostscript) and those with rarely used decoders.
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
if features.check("avif"):
    _FORMATS.append("AVIF")
# Brands of the files of AVIF and HEIF, after which their first box is named.
_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# What Pillow's decoders raise on damaged files: OSError as documented, and the others, found by
# fuzzing.
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
# Transient errors of network file systems, and the seconds to wait before each retry.
_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
_RETRY_AFTER = (1, 5, 20)
# Errors of the machine, not of the image.
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
_SIDEWAYS = (5, 6, 7, 8)  # Orientations that swap width and height.
# Number of pixels from which a JPEG may be decoded at a fraction of its size, and how many times
# as wide and high as the result it must then still be. Images of COCO and nearly all of ImageNet
# have fewer pixels, and keep those of detectron2.
_LARGE = 4_000_000
_REDUCED_GAP = 2


def open_image(path: StrPath, size: Size | None = None) -> Image.Image:
    """Open an image as 8-bit RGB with its EXIF orientation applied.

    Masks, boxes and annotations refer to the upright image, as in detectron2. Some annotations
    refer to the stored pixels instead: if ``size`` equals the stored size and not the upright
    one, the orientation is not applied. Alpha is dropped, palettes, 16-bit values and
    floating-point values from 0 to 1 are converted to 8 bits, and the first frame of an animation
    is used.

    Args:
        path: the file.
        size: the (width, height) stated by the image's annotations; None if unknown.

    Raises:
        ImageError: the image is ``missing``, ``unreadable`` or ``wrong_size`` (``size`` is neither
            the upright nor the stored size). Images of more pixels than
            :func:`cuvler.image_access.max_pixels` are ``unreadable``; only their header is read.
        OSError: this process has too many open files or too little memory.
    """
    return _read_with_retries(partial(_read, size=size), path)


def open_resized(
    path: StrPath,
    resized: Callable[[Size], Size],
    resample: Image.Resampling,
    size: Size | None = None,
    decoded: DecodedImages | None = None,
) -> tuple[Image.Image, Size]:
    """Open an image as :func:`open_image` does, and resize it.

    The pixels are those of :func:`open_image` and Pillow's ``resize``, but for JPEGs of at least 4
    megapixels. If such a JPEG is at least four times as wide and high as the result, it is decoded
    at 1/2, 1/4 or 1/8 of its size, to no less than twice the size of the result. That takes a
    third to a half of the time. In photographs of 12 and 50 megapixels, pixels then differ by at
    most 7 of 255, and by 0.4 on average; in images that are sharp to the last pixel, by at most 22
    and 2.2. Reading them with another filter, or storing the result as a JPEG of quality 95,
    changes them more.

    Args:
        path: the file.
        resized: maps the (width, height) of :func:`open_image`'s result to those wanted.
        resample: Pillow's filter.
        size: see :func:`open_image`.
        decoded: keeps those decoded at a fraction; the pixels are the same.

    Returns:
        The resized image, and the (width, height) of :func:`open_image`'s result.

    Raises:
        ImageError, OSError: see :func:`open_image`.
    """
    read = partial(
        _read_resized,
        resized=resized,
        resample=resample,
        size=size,
        decoded=decoded or DecodedImages(0),
    )
    return _read_with_retries(read, path)


def image_size(path: StrPath, size: Size | None = None) -> Size:
    """Return the (width, height) of :func:`open_image`'s result without decoding the image.

    Args:
        path: the file.
        size: see :func:`open_image`.

    Raises:
        ImageError, OSError: see :func:`open_image`; only the header is checked, and the limit of
            pixels is Pillow's.
    """
    return _read_with_retries(partial(_read_size, size=size), path)


def _read_with_retries(read: Callable[[StrPath], _T], path: StrPath) -> _T:
    try:
        _require_file(path)
        for seconds in _RETRY_AFTER:
            try:
                return read(path)
            except OSError as error:
                if error.errno not in _TRANSIENT:
                    raise
                time.sleep(seconds)
        return read(path)
    except FileNotFoundError:
        raise ImageError(ImageStatus.MISSING, f"{path}: no such file") from None
    except Image.DecompressionBombError as error:
        # Pillow's own limit is larger than the default, and so not the one to name.
        limit = f"more than {max_pixels() / 1e6:g} million pixels are not decoded"
        reason = f"too large, {limit}; scale it down, or raise max_pixels"
        raise ImageError(ImageStatus.UNREADABLE, f"{path}: {reason}") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        reason = str(error).strip() or type(error).__name__
        raise ImageError(ImageStatus.UNREADABLE, f"{path}: {reason}") from error


def _require_file(path: StrPath) -> None:
    """Refuse pipes and the like before they are opened: reading from one can wait for ever."""
    mode = os.stat(path).st_mode  # noqa: PTH116 (path may be any PathLike)
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise ImageError(ImageStatus.UNREADABLE, f"{path}: a {kind}, not a file")


def _open(path: StrPath) -> Image.Image:
    """Read an image's header; a HEIF file needs the extra ``heif``."""
    max_pixels()  # Also raises Pillow's limit, if it is lower.
    try:
        return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        # Only now, because importing pillow_heif takes a tenth of a second.
        brand = _brand(path)
        if brand in _AVIF and "AVIF" not in _FORMATS:
            raise ImageError(
                ImageStatus.UNREADABLE, f"{path}: an AVIF image; install Pillow 11.3 or newer"
            ) from None
        if brand not in _HEIF:
            raise
        try:
            require_extra("heif")
        except MissingExtraError as error:
            raise ImageError(ImageStatus.UNREADABLE, f"{path}: a HEIF image; {error}") from None
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False)
        return Image.open(path, formats=["HEIF"])


def _brand(path: StrPath) -> bytes:
    """Return the brand of an ISO base media file, of which AVIF and HEIF are kinds."""
    with open(path, "rb") as stream:
        start = stream.read(12)
    return start[8:] if start[4:8] == b"ftyp" else b""


def _require_few_pixels(path: StrPath, image: Image.Image) -> None:
    pixels, limit = math.prod(image.size), max_pixels()
    if pixels > limit:
        raise ImageError(
            ImageStatus.UNREADABLE,
            f"{path}: too large, {pixels / 1e6:.0f} million pixels where at most {limit / 1e6:g} "
            "are decoded; scale it down, or raise max_pixels",
        )


def _read(path: StrPath, size: Size | None) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns about damaged EXIF, and about images of one to two times its size limit.
        warnings.simplefilter("ignore")
        with _open(path) as image:
            _require_few_pixels(path, image)
            return _upright(path, image, size)


def _read_resized(
    path: StrPath,
    resized: Callable[[Size], Size],
    resample: Image.Resampling,
    size: Size | None,
    decoded: DecodedImages,
) -> tuple[Image.Image, Size]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(path) as image:
            _require_few_pixels(path, image)
            if isinstance(image, JpegImageFile) and math.prod(image.size) >= _LARGE:
                # The header of a JPEG has its orientation.
                turn = _turn(path, image.size, _orientation(image), size)
                upright = _turned(image.size, turn)
                wanted = _turned(resized(upright), turn)
                if reduced := _reduced(path, image, wanted, resample, decoded):
                    return _turn_upright(reduced, turn), upright
            whole = _upright(path, image, size)
            return whole.resize(resized(whole.size), resample), whole.size


def _reduced(
    path: StrPath,
    image: JpegImageFile,
    wanted: Size,
    resample: Image.Resampling,
    decoded: DecodedImages,
) -> Image.Image | None:
    """Decode a JPEG at a fraction of its size and resize it; None if it is not large enough."""
    width, height = image.size
    # Pillow takes the largest of the fractions that is not below this size.
    image.draft(None, (_REDUCED_GAP * wanted[0], _REDUCED_GAP * wanted[1]))
    scale = round(width / image.size[0])
    if scale == 1:
        return None
    # The last row and column may stand for fewer pixels than the others.
    small = decoded.get(path, scale, lambda: _to_rgb(image))
    return small.resize(wanted, resample, (0, 0, width / scale, height / scale))


def _upright(path: StrPath, image: Image.Image, size: Size | None) -> Image.Image:
    image.load()
    return _to_rgb(_turn_upright(image, _turn(path, image.size, _orientation(image), size)))


def _turn_upright(image: Image.Image, turn: int | None) -> Image.Image:
    # Not ImageOps.exif_transpose: it rewrites the EXIF, and fails if any tag is damaged.
    transpose = _UPRIGHT.get(turn)
    return image if transpose is None else image.transpose(transpose)


def _read_size(path: StrPath, size: Size | None) -> Size:
    with _open(path) as image:
        # Pillow decodes a whole PNG to look for an orientation after its pixels, where hardly any
        # file has one.
        known = image.format != "PNG" or "exif" in image.info or "xmp" in image.info
        if isinstance(image, TiffImageFile) and image.size != _tagged_size(image):
            known = False  # Pillow has applied it.
        turn = _turn(path, image.size, _orientation(image) if known else None, size)
        return _turned(image.size, turn)


def _tagged_size(image: TiffImageFile) -> Size:
    width, height = ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength
    return image.tag_v2[width], image.tag_v2[height]


def _turn(path: StrPath, stored: Size, orientation: int | None, size: Size | None) -> int | None:
    """Return the EXIF orientation to apply: the image's or none, whichever gives ``size``."""
    upright = _turned(stored, orientation)
    if size is None or size == upright:
        return orientation
    if size == stored:
        return None
    found, stated = (f"{width} x {height}" for width, height in (upright, size))
    raise ImageError(
        ImageStatus.WRONG_SIZE, f"{path}: is {found} pixels, but {stated} in its annotations"
    )


def _turned(stored: Size, orientation: int | None) -> Size:
    return stored[::-1] if orientation in _SIDEWAYS else stored


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return None  # As in image viewers, damaged EXIF is ignored.


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        low, high = image.getextrema()
        if low >= 0 and high <= 1:  # type: ignore[operator]
            # Pillow's conversion would round these values of a TIFF to black.
            image = image.point(lambda value: value * 255)
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's conversion clips 16-bit values at 255 instead of scaling them.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
