"""Fully connected CRF with two labels (Krähenbühl & Koltun, NIPS 2011)."""

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cuvler.extras import require_extra

Crf = Literal["fast", "pydensecrf"]
CrfSetting = Annotated[
    Crf,
    Field(
        description="The dense CRF that refines the masks: fast (compiled for two labels) or "
        "pydensecrf, which gives the same masks."
    ),
]

_SPATIAL_SXY = 3.0
_SPATIAL_COMPAT = 7.0
_BILATERAL_SXY = 50.0
_BILATERAL_SRGB = 5.0
_BILATERAL_COMPAT = 10.0
_ITERATIONS = 10
_MAX_FAST_SIDE = 10_000  # The lattice coordinates of ``fast`` have 12 bits.


def dense_crf(image: NDArray[np.uint8], masks: NDArray[np.bool_], *, crf: Crf) -> NDArray[np.bool_]:
    """Refine masks by mean-field inference with a spatial and a bilateral kernel.

    The unary energies are the negative log softmax of (1 - mask, mask). Kernels: Gaussian with
    sxy 3 and compatibility 7, bilateral with sxy 50, srgb 5 and compatibility 10, both
    normalised symmetrically; 10 iterations.

    Args:
        image: (h, w, 3) RGB.
        masks: (..., h, w). With ``fast`` the kernels are built once for all of them.
        crf: implementation: ``pydensecrf``, or ``fast``, which computes the same in the same
            precision, compiled for two labels.

    Returns:
        (..., h, w), True where the mask's label is the more probable one.

    Raises:
        MissingExtraError: pydensecrf is not installed. ``fast`` also needs it, for images with
            sides of more than 10,000 pixels.
    """
    height, width = masks.shape[-2:]
    run = _fast if crf == "fast" and max(height, width) <= _MAX_FAST_SIDE else _pydensecrf
    return run(image, masks.reshape(-1, height, width)).reshape(masks.shape)


def _fast(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from cuvler.pseudo_masks.mean_field import infer

    return infer(
        image,
        masks,
        spatial_sxy=_SPATIAL_SXY,
        spatial_compat=_SPATIAL_COMPAT,
        bilateral_sxy=_BILATERAL_SXY,
        bilateral_srgb=_BILATERAL_SRGB,
        bilateral_compat=_BILATERAL_COMPAT,
        iterations=_ITERATIONS,
    )


def _pydensecrf(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    require_extra("crf")
    from pydensecrf.densecrf import DenseCRF2D

    # The binding needs a writable, C-contiguous buffer.
    pixels = np.array(image, dtype=np.uint8, order="C")
    height, width = image.shape[:2]
    refined = np.empty_like(masks)
    for index, mask in enumerate(masks):
        inside = np.log1p(math.e) - mask.ravel()
        outside = np.log1p(math.e) - 1 + mask.ravel()
        model = DenseCRF2D(width, height, 2)
        model.setUnaryEnergy(np.stack([outside, inside]).astype(np.float32))
        model.addPairwiseGaussian(sxy=_SPATIAL_SXY, compat=_SPATIAL_COMPAT)
        model.addPairwiseBilateral(
            sxy=_BILATERAL_SXY, srgb=_BILATERAL_SRGB, rgbim=pixels, compat=_BILATERAL_COMPAT
        )
        outside, inside = np.array(model.inference(_ITERATIONS))
        refined[index] = (inside > outside).reshape(height, width)
    return refined
