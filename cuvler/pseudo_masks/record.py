"""What both ways of cutting give."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PseudoMask:
    """One object found in an image.

    Attributes:
        mask: (H, W) bool, the refined mask in the image's pixels; never empty.
        vote_mask: bool, the mask before refinement: VoteCut's vote at (60, 60), MaskCut's cut
            at (480, 480).
        score: in (0, 1], relative to the image's best mask.
        cluster_size: how many proposals voted.
        crf_success: false where the refinement was rejected and ``mask`` is the vote mask,
            resized.
    """

    mask: NDArray[np.bool_]
    vote_mask: NDArray[np.bool_]
    score: float
    cluster_size: int
    crf_success: bool
