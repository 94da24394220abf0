"""MaskCut's cuts: an image's graph is cut again and again, an object at a time.

The cuts are made where the features are, beside the ViT: features are 60 times as many numbers
as the eigenvectors. What is stored are the eigenvectors, from which :func:`partitions` gives
the same cuts anywhere.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvler.eigenvectors.normalized_cut import Eigenpairs, ncut
from cuvler.eigenvectors.partitions import partitions


def cut_repeatedly(
    features: Tensor, grid: tuple[int, int], *, n: int = 3, tau: float = 0.15, eps: float = 1e-5
) -> Eigenpairs[Tensor]:
    """Cut the patches of each image ``n`` times, without those that were cut before.

    CutLER, section 3.2. The eigenvectors are those of the generalized problem
    (D - W) x = lambda D x, on which MaskCut decides; VoteCut takes y = D^1/2 x.

    Args:
        features: (b, h * w, d), a patch's features a row, on any device.
        grid: h and w, the patches down and across.
        n: how many cuts.
        tau: patches whose features have a cosine above it are joined.
        eps: the weight of patches that are not alike.

    Returns:
        ``vectors`` (b, n, h * w): x of each cut, of unit length; ``values`` and ``residuals``
        (b, n), of y. ``status`` is each image's worst: ``failed`` where any cut's is.
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
    some_dense = np.where((found == "dense").any(axis=0), "dense", "ok")
    return np.where((found == "failed").any(axis=0), "failed", some_dense)
