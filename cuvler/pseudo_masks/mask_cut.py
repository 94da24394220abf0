"""MaskCut: one ViT's features are cut again and again, an object at a time."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cuvler.eigenvectors import ncut
from cuvler.pseudo_masks.crf import Crf, dense_crf
from cuvler.pseudo_masks.proposals import resize_nearest
from cuvler.pseudo_masks.record import PseudoMask
from cuvler.pseudo_masks.refinement import fill_holes

SIDE = 480  # Cuts are refined on the image at this size, squeezed to a square.
_MAX_CORNERS = 2  # A foreground with more of the image's corners is the background.
_MAX_OVERLAP = 0.5  # A cut that overlaps the one before by more is the same once more,
_MIN_SHARE = 0.01  # and one that covers no more of the patches is noise.
_MIN_KEPT = 0.5  # IoU of a mask before and after the CRF.


def maskcut(
    image: Image.Image,
    features: NDArray[np.floating],
    grid: tuple[int, int],
    *,
    n: int = 3,
    tau: float = 0.15,
    crf: Crf = "fast",
) -> list[PseudoMask]:
    """Find an image's objects by repeated normalized cuts (CutLER, section 3.2).

    Args:
        image: RGB, of H x W pixels.
        features: (h * w, d), a patch's features a row.
        grid: h and w, the patches down and across.
        n: how many cuts are tried.
        tau: patches whose features have a cosine above it are joined.
        crf: which implementation of the dense CRF refines the masks.

    Returns:
        At most ``n`` masks in the order they were cut, each with score and cluster size 1. Cuts
        that the CRF changes beyond recognition are left out.

    Raises:
        ValueError: ``features`` and ``grid`` do not fit together.
        ArithmeticError: the graph has no eigenvector that passes the solver's check.
    """
    if len(features) != grid[0] * grid[1]:
        raise ValueError(f"{len(features)} patches do not fill a grid of {grid[0]} x {grid[1]}")
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    masks = []
    for cut in cuts(features, grid, n=n, tau=tau):
        coarse = resize_nearest(cut, SIDE, SIDE)
        if not coarse.any():
            continue
        refined = fill_holes(dense_crf(pixels, coarse, crf=crf))
        if _iou(refined, coarse) < _MIN_KEPT:
            continue
        mask = _resize(refined, image.size)
        if mask.any():
            masks.append(PseudoMask(mask, coarse, score=1.0, cluster_size=1, crf_success=True))
    return masks


def cuts(
    features: NDArray[np.floating], grid: tuple[int, int], *, n: int, tau: float
) -> list[NDArray[np.bool_]]:
    """Cut ``n`` times, each time without the patches that were cut before.

    Returns:
        ``n`` masks (h, w) that do not overlap; empty where a cut was dropped.
    """
    taken = np.zeros(grid, dtype=np.bool_)
    previous: NDArray[np.bool_] | None = None
    found = []
    for _ in range(n):
        rest = np.where(taken.reshape(-1, 1), 0, features).astype(np.float32)
        pairs = ncut(rest, tau=tau)
        if pairs.status == "failed":
            raise ArithmeticError("no eigenvector of the patches' graph passed the check")
        cut = _cut(pairs.generalized()[0].reshape(grid))
        if previous is not None and (
            _iou(cut, previous) > _MAX_OVERLAP or cut.mean() <= _MIN_SHARE
        ):
            cut = np.zeros_like(cut)
        cut = cut & ~taken
        taken |= cut
        previous = cut
        found.append(cut)
    return found


def _cut(vector: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Give the side of a bipartition that is the object, the part around its seed."""
    foreground = vector > vector.mean()
    seed = np.unravel_index(np.argmax(np.abs(vector)), vector.shape)
    corners = np.count_nonzero(foreground[[0, 0, -1, -1], [0, -1, 0, -1]])
    if corners > _MAX_CORNERS or not foreground[seed]:
        foreground = ~foreground
        seed = np.unravel_index(np.argmin(vector), vector.shape)
    components, _ = ndimage.label(foreground)  # 4-connected
    cut: NDArray[np.bool_] = foreground & (components == components[seed])
    return cut


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0


def _resize(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask smoothly to (width, height) and cut it at one half."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: NDArray[np.bool_] = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) > 127
    return resized
