"""Proposals: pieces of the clustered eigenvector maps that may be objects."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cuvler.pseudo_masks.kmeans import kmeans_1d

GRID = 60  # Proposals of every backbone are compared and vote on one square grid.
_MAX_CORNERS = 1  # A label in two or more of the image's corners is background,
_MAX_COMPONENTS = 30  # in more pieces than this it is texture,
_MIN_SIDE = 5  # and a piece smaller than this in both directions (patches) is noise.


def propose(
    eigenvectors: Mapping[str, NDArray[np.floating]], ks: Sequence[int]
) -> NDArray[np.bool_]:
    """Cut the maps into proposals (CuVLER, section 3.1).

    Args:
        eigenvectors: backbone -> (h, w) map. A map that is not finite proposes nothing.
        ks: numbers of clusters each map is cut into.

    Returns:
        (n, 60, 60) bool, none empty, in the order of the backbones, ``ks``, values and pixels.
    """
    proposals = [
        resized
        for vector in eigenvectors.values()
        if np.isfinite(vector).all()
        for k in ks
        for component in _components(kmeans_1d(vector, k))
        if (resized := resize_nearest(component, GRID, GRID)).any()
    ]
    return np.array(proposals, dtype=np.bool_).reshape(-1, GRID, GRID)


def _components(labels: NDArray[np.intp]) -> Iterator[NDArray[np.bool_]]:
    for label in range(int(labels.max()) + 1):
        mask = labels == label
        if np.count_nonzero(mask[[0, 0, -1, -1], [0, -1, 0, -1]]) > _MAX_CORNERS:
            continue
        components, count = ndimage.label(mask)  # 4-connected
        if count > _MAX_COMPONENTS:
            continue
        for number, (rows, columns) in enumerate(ndimage.find_objects(components), start=1):
            if max(rows.stop - rows.start, columns.stop - columns.start) >= _MIN_SIDE:
                yield components == number


def resize_nearest(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resize a mask, each new pixel taking the old pixel under its upper left corner."""
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    resized: NDArray[np.bool_] = mask.take(rows, axis=0).take(columns, axis=1)
    return resized
