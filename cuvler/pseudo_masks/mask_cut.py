"""MaskCut: one ViT's features are cut again and again, an object at a time."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from cuvler.eigenvectors.needs import Cuts
from cuvler.eigenvectors.partitions import partitions
from cuvler.masks import iou
from cuvler.pseudo_masks.crf import Crf, CrfSetting, dense_crf
from cuvler.pseudo_masks.methods import Method, Name
from cuvler.pseudo_masks.proposals import resize_nearest
from cuvler.pseudo_masks.record import PseudoMask
from cuvler.pseudo_masks.refinement import fill_holes

SIDE = 480  # Cuts are refined on the image at this size, squeezed to a square.
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
    import torch

    from cuvler.eigenvectors.cuts import cut_repeatedly

    if len(features) != grid[0] * grid[1]:
        raise ValueError(f"{len(features)} patches do not fill a grid of {grid[0]} x {grid[1]}")
    pairs = cut_repeatedly(torch.as_tensor(features)[None], grid, n=n, tau=tau)
    if pairs.status[0] == "failed":
        raise ArithmeticError("no eigenvector of the patches' graph passed the check")
    return refine_cuts(image, partitions(pairs.vectors[0].numpy().reshape(n, *grid)), crf=crf)


def refine_cuts(
    image: Image.Image, cuts: NDArray[np.bool_], *, crf: Crf = "fast"
) -> list[PseudoMask]:
    """Make masks of an image's cuts (n, h, w); see :func:`maskcut`."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    masks = []
    for cut in cuts:
        coarse = resize_nearest(cut, SIDE, SIDE)
        if not coarse.any():
            continue
        refined = fill_holes(dense_crf(pixels, coarse, crf=crf))
        if iou(refined, coarse) < _MIN_KEPT:
            continue
        mask = _resize(refined, image.size)
        if mask.any():
            masks.append(PseudoMask(mask, vote_mask=coarse))
    return masks


def _resize(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask smoothly to (width, height) and cut it at one half."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: NDArray[np.bool_] = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) > 127
    return resized


class MaskCut(Method):
    """MaskCut as a method, with its settings; see :func:`maskcut`."""

    name: ClassVar[str] = "maskcut"
    scored: ClassVar[bool] = False
    rate: ClassVar[tuple[float, str]] = (
        8,
        "measured on one core of an AMD EPYC: three cuts an image",
    )

    backbone: Annotated[Name, Field(description="The backbone whose features are cut.")] = "dino_b8"
    n: Annotated[
        int,
        Field(ge=1, description="How often an image is cut; each cut gives one mask at most."),
    ] = 3
    crf: CrfSetting = "fast"

    def needs(self) -> dict[str, Cuts]:
        """Ask for the cuts of the one backbone's features."""
        return {self.backbone: Cuts(self.n)}

    def masks(
        self, image: Image.Image, vectors: Mapping[str, NDArray[np.float32]]
    ) -> list[PseudoMask]:
        """Refine the cuts."""
        return refine_cuts(image, partitions(vectors[self.backbone]), crf=self.crf)

    @property
    def masks_per_image(self) -> float:
        """As many as cuts, at most."""
        return self.n
