"""VoteCut: self-supervised ViTs vote on the objects of an image."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.pseudo_masks.clusters import vote
from cuvler.pseudo_masks.crf import Crf
from cuvler.pseudo_masks.proposals import propose, resize_nearest
from cuvler.pseudo_masks.record import PseudoMask
from cuvler.pseudo_masks.refinement import refine


def votecut(
    image: Image.Image,
    eigenvectors: Mapping[str, NDArray[np.floating]],
    *,
    ks: Sequence[int] = (2, 3),
    tau_m: float = 0.2,
    crf: Crf = "fast",
) -> list[PseudoMask]:
    """Find an image's objects by the vote of several backbones (CuVLER, section 3.1).

    Args:
        image: RGB, of H x W pixels.
        eigenvectors: backbone -> (h, w) map of the second smallest eigenvector of the normalized
            cut. A map that is constant or not finite has no say. The order of the backbones
            decides ties only.
        ks: numbers of clusters each map is cut into, each at least 2.
        tau_m: a pixel belongs to a mask where more than this share of its cluster says so.
        crf: which implementation of the dense CRF refines the masks.

    Returns:
        At most 10 masks, those most proposals voted for first; empty where there is none.
    """
    pixels = np.asarray(image.convert("RGB"))
    votes = [
        (v, mask)
        for v in vote(propose(eigenvectors, ks), tau_m=tau_m)
        # In an image of fewer pixels than the grid, a mask can fall between the pixels.
        if (mask := resize_nearest(v.mask, *pixels.shape[:2])).any()
    ]
    masks = []
    for v, mask in votes:
        refined = refine(pixels, mask, crf=crf)
        masks.append(
            PseudoMask(
                mask=mask if refined is None else refined,
                vote_mask=v.mask,
                score=v.size / votes[0][0].size,
                cluster_size=v.size,
                crf_success=refined is not None,
            )
        )
    return masks
