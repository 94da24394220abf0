"""The result type of all pseudo-mask methods."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PseudoMask:
    """The mask of one object.

    Only ``mask`` is required; the defaults describe a mask from a single proposal.

    Attributes:
        mask: (H, W) bool, the refined mask at the image's size; never empty.
        vote_mask: bool, the mask before refinement: VoteCut's vote at (60, 60), MaskCut's cut
            at (480, 480); None if the method has none.
        score: in (0, 1]; VoteCut's are relative to the image's best mask.
        cluster_size: number of proposals that voted.
        crf_success: False if the refinement was rejected and ``mask`` is the resized vote mask.
    """

    mask: "NDArray[np.bool_]"
    vote_mask: "NDArray[np.bool_] | None" = None
    score: float = 1.0
    cluster_size: int = 1
    crf_success: bool = True
