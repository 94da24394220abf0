"""Hand-made patch descriptors: backbones without weights, for the demo and for tests.

Those of ``pixel_features`` encode a patch's saliency against the image border, and its colour.
They find objects only where they stand out from the background. Those of ``colour_features``
encode only colour, for agglomerative grouping. On photographs, results are far below a ViT's.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from cuvler.eigenvectors.backbones import RESAMPLING

# In CIELAB units: bandwidth of the kernel density of the border's colours, and the colour
# difference between neighbouring patches that is ignored as shading.
_KERNEL_WIDTH = 5.0
_SHADING = 3.0
# Two patches have an edge if their saliency differs by less than about a fifth of its range; the
# difference between white and black weighs as much.
_SALIENCY_WEIGHT = 10.0
_COLOUR_WEIGHT = 0.01
_FREQUENCIES = 32
# Colour difference at which patches have a similarity of exp(-1/2).
_COLOUR_WIDTH = 15.0


def pixel_features(image: Image.Image, *, size: int, patch: int) -> Tensor:
    """Compute the descriptors of an image's patches.

    Args:
        image: RGB.
        size: side in pixels of the square to which the image is resized.
        patch: side of a patch in pixels; must divide ``size``.

    Returns:
        ((size / patch)^2, 64) float32 on the CPU, in row-major order, of equal norm. The cosine
        similarity of two descriptors is about exp(-d^2 / 2), d being the distance between the
        patches' saliency and colour vectors.
    """
    colours = _patch_colours(image, size, patch)
    density = _stretch(_unlike_border(colours))
    distance = _stretch(_distance_to_border(colours[..., :3]))
    saliency = (density + distance)[..., None] / 2
    looks = np.concatenate([_SALIENCY_WEIGHT * saliency, _COLOUR_WEIGHT * colours], axis=-1)
    return torch.from_numpy(_fourier_features(looks.reshape(-1, looks.shape[-1])))


def colour_features(image: Image.Image, *, size: int, patch: int) -> Tensor:
    """Compute descriptors of the patches' mean colours and contrasts.

    Args:
        image: RGB.
        size: side in pixels of the square to which the image is resized.
        patch: side of a patch in pixels; must divide ``size``.

    Returns:
        ((size / patch)^2, 64) float32 on the CPU, in row-major order, of equal norm. The cosine
        similarity of two descriptors is about exp(-d^2 / 450), d being the distance between the
        means and halved standard deviations in CIELAB.
    """
    colours = _patch_colours(image, size, patch) / _COLOUR_WIDTH
    return torch.from_numpy(_fourier_features(colours.reshape(-1, colours.shape[-1])))


def _patch_colours(image: Image.Image, size: int, patch: int) -> NDArray[np.float32]:
    """Return the mean and half the standard deviation of CIELAB per patch, (grid, grid, 6)."""
    resized = image.resize((size, size), RESAMPLING)
    lab = np.asarray(ImageCms.applyTransform(resized, _rgb_to_lab()))
    # Pillow stores L as 0 to 255, and a and b in two's complement.
    lightness = lab[..., :1].astype(np.float32) * (100 / 255)
    chroma = np.ascontiguousarray(lab[..., 1:]).view(np.int8).astype(np.float32)
    grid = size // patch
    blocks = np.concatenate([lightness, chroma], axis=-1).reshape(grid, patch, grid, patch, 3)
    return np.concatenate([blocks.mean(axis=(1, 3)), blocks.std(axis=(1, 3)) / 2], axis=-1)


@cache
def _rgb_to_lab() -> ImageCms.ImageCmsTransform:
    # Cached: building the transform takes as long as applying it, and ``Image.convert`` builds
    # one per call.
    rgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(rgb, lab, "RGB", "LAB")


def _border(grid: int) -> NDArray[np.bool_]:
    """Return a (grid, grid) mask of the border patches."""
    border = np.ones((grid, grid), dtype=bool)
    border[1:-1, 1:-1] = False
    return border


def _unlike_border(colours: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the negative log density of each patch's colours among the border's, (grid, grid)."""
    border = colours[_border(len(colours))]
    squares = (
        (colours**2).sum(axis=-1)[..., None] + (border**2).sum(axis=-1) - 2 * colours @ border.T
    )
    kernel = np.exp(-squares.astype(np.float64) / (2 * _KERNEL_WIDTH**2))
    unlike: NDArray[np.float64] = -np.log(kernel.mean(axis=-1) + 1e-6)
    return unlike


def _distance_to_border(colours: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each patch's geodesic colour distance to the border, (grid, grid).

    Y. Wei et al., "Geodesic saliency using background priors", ECCV 2012.
    """
    grid = len(colours)
    index = np.arange(grid * grid).reshape(grid, grid)
    outside = grid * grid
    steps = [
        (index[:, :-1], index[:, 1:], np.linalg.norm(np.diff(colours, axis=1), axis=-1)),
        (index[:-1], index[1:], np.linalg.norm(np.diff(colours, axis=0), axis=-1)),
    ]
    border = index[_border(grid)]
    sources = np.concatenate([*(s.ravel() for s, _, _ in steps), np.full(len(border), outside)])
    targets = np.concatenate([*(t.ravel() for _, t, _ in steps), border])
    # An explicit zero would be no edge in a sparse matrix.
    lengths = np.concatenate([*(d.ravel() for _, _, d in steps), np.zeros(len(border))])
    lengths = np.maximum(lengths - _SHADING, 1e-3)
    graph = coo_array((lengths, (sources, targets)), shape=(outside + 1, outside + 1)).tocsr()
    distances = dijkstra(graph, directed=False, indices=outside)[:-1]
    return np.asarray(distances, dtype=np.float64).reshape(grid, grid)


def _stretch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map the 2nd to 98th percentile to [0, 1] and clip the rest."""
    low, high = np.quantile(values, [0.02, 0.98])
    stretched: NDArray[np.float64] = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return stretched


def _fourier_features(looks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Map (n, d) to (n, 2 * frequencies); inner products approximate a Gaussian kernel.

    A. Rahimi and B. Recht, "Random features for large-scale kernel machines", NIPS 2007. The
    frequencies are the same for every image.
    """
    frequencies = np.random.default_rng(1).standard_normal((looks.shape[1], _FREQUENCIES))
    phases = (looks @ frequencies).astype(np.float32)
    return np.concatenate([np.cos(phases), np.sin(phases)], axis=-1)
