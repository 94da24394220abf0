"""Which image files may be opened: limits for the whole process, and file names within a root.

The limits are environment variables, so that worker processes have them too, however they are
started. Options of the commands and the config section ``images`` set them.
"""

import os
from pathlib import Path, PurePosixPath

from PIL import Image

from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath

MAX_PIXELS_VARIABLE = "CUVLER_MAX_PIXELS"
ALLOW_OUTSIDE_VARIABLE = "CUVLER_ALLOW_OUTSIDE"
# Largest number of pixels of an image. The masks of an image of 100 megapixels take some GB.
MAX_PIXELS = 100_000_000


def max_pixels() -> int:
    """Return the largest number of pixels that an image may have to be decoded.

    Raises:
        ConfigError: the environment variable is not a positive whole number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE) or str(MAX_PIXELS)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{MAX_PIXELS_VARIABLE}={text!r}: not a positive whole number of pixels")
    limit = int(text)
    # Pillow has a limit of its own, which it applies twofold.
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    return limit


def image_path(image_root: StrPath, file_name: str) -> Path:
    """Return the path of an image from its file name in a listing or a COCO json.

    Raises:
        DataError: see :func:`require_within`.
    """
    require_within(file_name, image_root)
    return Path(image_root, file_name)


def require_within(file_name: str, image_root: StrPath) -> None:
    """Check that a file name does not lead out of the image root: a json may be anyone's.

    Links below the image root are followed; they are the user's own.

    Raises:
        DataError: the name is absolute or has ``..``, and ``CUVLER_ALLOW_OUTSIDE`` is not set.
    """
    path = PurePosixPath(file_name)
    if not (path.is_absolute() or ".." in path.parts) or os.environ.get(ALLOW_OUTSIDE_VARIABLE):
        return
    raise DataError(
        f"file_name {file_name!r} leads out of the image root {image_root}, so it is not opened; "
        "if you trust the file that names it, allow it",
        parameter="allow_outside",
    )
