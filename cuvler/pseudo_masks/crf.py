"""Fully connected CRF with two labels (Krähenbühl & Koltun, NIPS 2011)."""

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cuvler.extras import require_extra

Crf = Literal["fast", "pydensecrf"]
CrfSetting = Annotated[Crf, Field(description="The dense CRF that refines the masks.")]

SPATIAL_SXY = 3.0
SPATIAL_COMPAT = 7.0
BILATERAL_SXY = 50.0
BILATERAL_SRGB = 5.0
BILATERAL_COMPAT = 10.0
ITERATIONS = 10
_MAX_FAST_SIDE = 10_000  # Its lattice coordinates have 12 bits.


def dense_crf(image: NDArray[np.uint8], mask: NDArray[np.bool_], *, crf: Crf) -> NDArray[np.bool_]:
    """Refine a mask by mean-field inference with a spatial and a bilateral kernel.

    The unary energies are the negative log softmax of (1 - mask, mask). Kernels: Gaussian with
    sxy 3 and compatibility 7, bilateral with sxy 50, srgb 5 and compatibility 10, both
    normalised symmetrically; 10 iterations.

    Args:
        image: (h, w, 3) RGB.
        mask: (h, w).
        crf: which implementation: ``pydensecrf``, or ``fast``, which computes the same in the
            same precision, compiled for two labels.

    Returns:
        (h, w), where the mask's label is the more probable one.

    Raises:
        MissingExtraError: pydensecrf is not installed; ``fast`` too needs it for images of more
            than 10,000 pixels a side.
    """
    if crf == "fast" and max(mask.shape) <= _MAX_FAST_SIDE:
        return _fast(image, mask)
    return _pydensecrf(image, mask)


def _fast(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from cuvler.pseudo_masks.mean_field import infer

    return infer(
        image,
        mask,
        spatial_sxy=SPATIAL_SXY,
        spatial_compat=SPATIAL_COMPAT,
        bilateral_sxy=BILATERAL_SXY,
        bilateral_srgb=BILATERAL_SRGB,
        bilateral_compat=BILATERAL_COMPAT,
        iterations=ITERATIONS,
    )


def _pydensecrf(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    require_extra("crf")
    from pydensecrf.densecrf import DenseCRF2D

    height, width = mask.shape
    inside = np.log1p(math.e) - mask.ravel()
    outside = np.log1p(math.e) - 1 + mask.ravel()
    model = DenseCRF2D(width, height, 2)
    model.setUnaryEnergy(np.stack([outside, inside]).astype(np.float32))
    model.addPairwiseGaussian(sxy=SPATIAL_SXY, compat=SPATIAL_COMPAT)
    # The binding reads the buffer as it lies in memory and refuses one it cannot write to.
    pixels = np.array(image, dtype=np.uint8, order="C")
    model.addPairwiseBilateral(
        sxy=BILATERAL_SXY, srgb=BILATERAL_SRGB, rgbim=pixels, compat=BILATERAL_COMPAT
    )
    outside, inside = np.array(model.inference(ITERATIONS))
    refined: NDArray[np.bool_] = (inside > outside).reshape(height, width)
    return refined
