"""Proposals: connected components of the clustered eigenvector maps."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

GRID = 60  # Side of the square grid on which proposals of all backbones are compared.
_MAX_CORNERS = 1  # A label that covers more corners of the image is background.
_MAX_COMPONENTS = 30  # A label with more connected components is texture.
_MIN_SIDE = 5  # A component smaller than this in height and width, in patches, is noise.


def propose(
    eigenvectors: Mapping[str, NDArray[np.floating]], ks: Sequence[int]
) -> NDArray[np.bool_]:
    """Compute the proposals of an image's eigenvector maps (CuVLER, section 3.1).

    Args:
        eigenvectors: backbone -> (h, w) map, or (k, h, w) maps that are clustered one by one.
            Maps with NaN or infinite values are skipped.
        ks: numbers of clusters.

    Returns:
        (n, 60, 60) bool, none empty, ordered by backbone, map, ``ks``, cluster value and component.
    """
    from cuvler.pseudo_masks.kmeans import kmeans_1d

    proposals = [
        resized
        for maps in eigenvectors.values()
        for vector in (maps if maps.ndim == 3 else maps[None])
        if np.isfinite(vector).all()
        for k in ks
        for component in _components(kmeans_1d(vector, k))
        if (resized := resize_nearest(component, GRID, GRID)).any()
    ]
    return np.array(proposals, dtype=np.bool_).reshape(-1, GRID, GRID)


def _components(labels: NDArray[np.intp]) -> Iterator[NDArray[np.bool_]]:
    for label in range(int(labels.max()) + 1):
        mask = labels == label
        if is_background(mask):
            continue
        components, count = scipy.ndimage.label(mask)  # 4-connected
        if count > _MAX_COMPONENTS:
            continue
        for number, box in enumerate(scipy.ndimage.find_objects(components), start=1):
            if not is_noise(box):
                yield components == number


def is_background(mask: NDArray[np.bool_]) -> bool:
    """Return whether a mask (h, w) covers so many corners of the image that it is no object."""
    return int(np.count_nonzero(mask[[0, 0, -1, -1], [0, -1, 0, -1]])) > _MAX_CORNERS


def is_noise(box: tuple[slice, ...]) -> bool:
    """Return whether a component's box, in patches, is too small for an object."""
    return all(side.stop - side.start < _MIN_SIDE for side in box)


def resize_nearest(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resize a mask to nearest neighbours, taken at each new pixel's upper left corner."""
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    resized: NDArray[np.bool_] = mask.take(columns, axis=1).take(rows, axis=0)
    return resized
