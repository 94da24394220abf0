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


def image_path(image_root: StrPath, file_name: str, *, source: StrPath = "") -> Path:
    """Return the path of an image from its file name in a listing or a COCO json.

    A json may be anyone's, so its names must not lead out of the image root. Links below it are
    followed; they are the user's own.

    Args:
        image_root: the folder that file names start from.
        file_name: as in the listing or json.
        source: the file that names it, for the message.

    Raises:
        DataError: the name is absolute or has ``..``, and ``CUVLER_ALLOW_OUTSIDE`` is not set.
    """
    path = PurePosixPath(file_name)
    outside = path.is_absolute() or ".." in path.parts
    if outside and not os.environ.get(ALLOW_OUTSIDE_VARIABLE):
        named = f"{source}: " if source else ""
        raise DataError(
            f"{named}file_name {file_name!r} leads out of the image root, so it is not opened; "
            "allow_outside allows it, for files that you trust",
            parameter="allow_outside",
        )
    return Path(image_root, file_name)
