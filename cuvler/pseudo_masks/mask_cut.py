"""MaskCut: repeated normalized cuts of one ViT's features, one object per cut."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

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

SIDE = 480  # Cuts are refined on the image resized to a square of this side.
_MIN_KEPT = 0.5  # Smallest IoU of a mask before and after the CRF.


def maskcut(
    image: Image.Image,
    features: NDArray[np.floating],
    grid: tuple[int, int],
    *,
    n: int = 3,
    tau: float = 0.15,
    stop_at_background: bool = False,
    crf: Crf = "fast",
) -> list[PseudoMask]:
    """Find an image's objects by repeated normalized cuts (CutLER, section 3.2).

    Args:
        image: RGB, H x W pixels.
        features: (h * w, d), one row per patch.
        grid: (h, w), the number of patch rows and columns.
        n: number of cuts.
        stop_at_background: cut less often, if what is left is background; see
            :func:`cuvler.eigenvectors.cuts.cut_repeatedly`.
        tau: cosine similarity above which two patches are connected.
        crf: implementation of the dense CRF.

    Returns:
        At most ``n`` masks in the order of the cuts, each with score 1. A cut is dropped if the
        IoU of the mask before and after the CRF is below 0.5.

    Raises:
        ValueError: ``features`` and ``grid`` have different numbers of patches.
        ArithmeticError: no eigenvector passed the solver's residual check.
    """
    import torch

    from cuvler.eigenvectors.cuts import cut_repeatedly

    if len(features) != grid[0] * grid[1]:
        raise ValueError(f"{len(features)} patches do not fill a grid of {grid[0]} x {grid[1]}")
    pairs = cut_repeatedly(
        torch.as_tensor(features)[None],
        grid,
        n=n,
        tau=tau,
        stop_at_background=stop_at_background,
    )
    if pairs.failed[0]:
        raise ArithmeticError("no eigenvector of the patches' graph passed the residual check")
    return refine_cuts(image, partitions(pairs.vectors[0].numpy().reshape(n, *grid)), crf=crf)


def refine_cuts(
    image: Image.Image, cuts: NDArray[np.bool_], *, crf: Crf = "fast"
) -> list[PseudoMask]:
    """Refine the cuts (n, h, w) of an image to masks; see :func:`maskcut`."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    found = [resize_nearest(cut, SIDE, SIDE) for cut in cuts if cut.any()]
    if not found:
        return []
    masks = []
    for coarse, refined in zip(found, dense_crf(pixels, np.stack(found), crf=crf), strict=True):
        filled = fill_holes(refined)
        if iou(filled, coarse) < _MIN_KEPT:
            continue
        mask = _resize(filled, image.size)
        if mask.any():
            masks.append(PseudoMask(mask, vote_mask=coarse))
    return masks


def _resize(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask to (width, height) bicubically, and threshold it at one half."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: NDArray[np.bool_] = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) > 127
    return resized


class MaskCut(Method):
    """MaskCut (CutLER): the features of one backbone are cut again and again.

    See :func:`maskcut`.
    """

    name: ClassVar[str] = "maskcut"
    added: ClassVar[tuple[str, ...]] = ("stop_at_background",)
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n": 3},
        {"n": 10, "stop_at_background": True},
    )
    scored: ClassVar[bool] = False
    rate: ClassVar[tuple[float, str]] = (
        9,
        "measured on one core of an Intel Xeon: three cuts per image",
    )

    backbone: Annotated[Name, Field(description="The backbone of the features.")] = "dino_b8"
    n: Annotated[
        int,
        Field(ge=1, description="Number of cuts; each gives at most one mask."),
    ] = 3
    stop_at_background: Annotated[
        bool,
        Field(
            description="End cutting before n if what is left is background, by votes of the "
            "patches (UnionCut); raise n with it, to 10 for example. Off as published."
        ),
    ] = False
    crf: CrfSetting = "fast"

    def needs(self) -> dict[str, Cuts]:
        """Return the cuts of the backbone's features."""
        return {self.backbone: Cuts(self.n, stop_at_background=self.stop_at_background)}

    def masks(
        self, image: Image.Image, vectors: Mapping[str, NDArray[np.float32]]
    ) -> list[PseudoMask]:
        """Compute an image's masks from its cuts."""
        return refine_cuts(image, partitions(vectors[self.backbone]), crf=self.crf)

    @property
    def masks_per_image(self) -> float:
        """The number of cuts, which is the largest number of masks."""
        return self.n
