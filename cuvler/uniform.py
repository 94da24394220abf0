"""Recognizing images without any content, in which no method may find an object."""

from PIL import Image, ImageStat

# Noise of a camera or of JPEG compression deviates this little, in 8-bit levels, ...
_MAX_DEVIATION = 4.0
# ... and is averaged out in cells of at least 8 x 8 pixels, at most 60 in each direction: VoteCut's
# resolution, at which a smaller object is no proposal either.
_MAX_RANGE = 3
_CELL = 8
_MOST_CELLS = 60


def is_uniform(image: Image.Image) -> bool:
    """Return whether an image has one colour but for noise, such as a black frame.

    The graph of such an image's patches has no cut: eigenvectors of it, and so any masks, show the
    descriptors' or the solver's rounding. An image is uniform if in each channel the standard
    deviation of the pixels is at most 4 of 255, and the means of cells differ by at most 3.

    Args:
        image: any size and mode.
    """
    rgb = image.convert("RGB")
    if max(ImageStat.Stat(rgb).stddev) > _MAX_DEVIATION:
        return False
    width, height = (max(1, min(_MOST_CELLS, side // _CELL)) for side in rgb.size)
    cells = rgb.resize((width, height), Image.Resampling.BOX)
    return all(high - low <= _MAX_RANGE for low, high in ImageStat.Stat(cells).extrema)
