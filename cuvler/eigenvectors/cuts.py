"""MaskCut's iterative normalized cuts.

The cuts run in the extraction stage, because the features are 60 times as large as the
eigenvectors. Only the eigenvectors are stored; :func:`partitions` computes the same cuts from
them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvler.eigenvectors.normalized_cut import Eigenpairs, SolverStatus, ncut
from cuvler.eigenvectors.partitions import partitions


def cut_repeatedly(
    features: Tensor, grid: tuple[int, int], *, n: int = 3, tau: float = 0.15, eps: float = 1e-5
) -> Eigenpairs[Tensor]:
    """Cut each image ``n`` times, excluding the patches of previous cuts (CutLER, section 3.2).

    MaskCut partitions the eigenvectors x of the generalized problem (D - W) x = lambda D x.
    VoteCut uses y = D^1/2 x.

    Args:
        features: (b, h * w, d), one row per patch, on any device.
        grid: (h, w), the patch grid.
        n: number of cuts.
        tau: cosine similarity above which two patches have an edge of weight 1.
        eps: weight of all other edges.

    Returns:
        ``vectors`` (b, n, h * w) are the x of each cut, of unit norm; ``values`` and
        ``residuals`` (b, n) belong to y. ``status`` is the worst of each image's cuts.
    """
    steps: list[Eigenpairs[Tensor]] = []
    vectors: list[Tensor] = []
    taken = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
    for _ in range(n):
        steps.append(ncut(features.masked_fill(taken[..., None], 0), tau=tau, eps=eps))
        generalized = steps[-1].generalized()
        vectors.append(torch.nn.functional.normalize(generalized, dim=-1))
        so_far = torch.cat(vectors, dim=1).cpu().numpy().reshape(len(features), -1, *grid)
        cuts = np.stack([partitions(image).any(axis=0) for image in so_far])
        taken = torch.from_numpy(cuts.reshape(taken.shape)).to(features.device)
    return Eigenpairs(
        vectors=torch.cat(vectors, dim=1),
        values=torch.cat([step.values for step in steps], dim=1),
        residuals=torch.cat([step.residuals for step in steps], dim=1),
        degrees=steps[0].degrees,
        status=_worst([step.status for step in steps]),
    )


def _worst(statuses: list[NDArray[np.str_]]) -> NDArray[np.str_]:
    found = np.stack(statuses)
    some_dense = np.where(
        (found == SolverStatus.DENSE).any(axis=0), SolverStatus.DENSE, SolverStatus.OK
    )
    return np.where((found == SolverStatus.FAILED).any(axis=0), SolverStatus.FAILED, some_dense)
