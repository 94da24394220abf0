"""MaskCut's iterative normalized cuts.

The cuts run in the extraction stage, because the features are 60 times as large as the
eigenvectors. Only the eigenvectors are stored; :func:`partitions` computes the same cuts from
them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvler.devices import on_device
from cuvler.eigenvectors.normalized_cut import Eigenpairs, SolverStatus, ncut
from cuvler.eigenvectors.partitions import foreground_union, is_all_cut, is_background, partitions


def cut_repeatedly(
    features: Tensor,
    grid: tuple[int, int],
    *,
    n: int = 3,
    tau: float = 0.15,
    eps: float = 1e-5,
    stop_at_background: bool = False,
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
        stop_at_background: end the cuts of an image where what is left is background: when at most
            1 % of the patches are foreground (:func:`.partitions.foreground_union`) that is not
            cut, or at a cut that is less than half foreground, which does not count.

    Returns:
        ``vectors`` (b, n, h * w) are the x of each cut, of unit norm; ``values`` and
        ``residuals`` (b, n) belong to y. All three are 0 for cuts that were not made. ``status``
        is the worst of each image's cuts.
    """
    size, patches = features.shape[:2]
    vectors = features.new_zeros((size, n, patches), dtype=torch.float32)
    values, residuals = vectors.new_zeros((2, size, n), dtype=torch.float64)
    taken = vectors.new_zeros((size, patches), dtype=torch.bool)
    steps: list[NDArray[np.str_]] = []
    rows = np.arange(size)  # Images that are still cut.
    unions: list[NDArray[np.bool_]] = []
    for number in range(n):
        index = on_device(torch.from_numpy(rows), features.device)
        step = ncut(features[index].masked_fill(taken[index][..., None], 0), tau=tau, eps=eps)
        vectors[index, number] = torch.nn.functional.normalize(step.generalized()[:, 0], dim=-1)
        values[index, number], residuals[index, number] = step.values[:, 0], step.residuals[:, 0]
        steps.append(_status_of_all(step.status, rows, size))
        if number == 0:
            degrees = step.degrees
        if number == n - 1 and not stop_at_background:
            break
        so_far = vectors[index, : number + 1].cpu().numpy().reshape(len(rows), -1, *grid)
        cuts = np.stack([partitions(image) for image in so_far])
        covered = torch.from_numpy(cuts.any(axis=1).reshape(-1, patches))
        taken[index] = on_device(covered, taken.device)
        if not stop_at_background:
            continue
        if not unions:
            unions = list(map(foreground_union, degrees.cpu().numpy().reshape(-1, *grid)))
        left = [unions[row] for row in rows]
        of_background = np.array(list(map(is_background, cuts[:, -1], left))) & ~step.failed
        dropped = on_device(torch.from_numpy(rows[of_background]), features.device)
        for tensor in (vectors, values, residuals):
            tensor[dropped, number] = 0
        rows = rows[~(of_background | list(map(is_all_cut, cuts, left)))]
        if not len(rows):
            break
    return Eigenpairs(vectors, values, residuals, degrees, _worst(steps))


def _status_of_all(status: NDArray[np.str_], rows: NDArray[np.intp], size: int) -> NDArray[np.str_]:
    """Return the statuses of a cut of all images; those that were not cut are ok."""
    of_all = np.full(size, SolverStatus.OK, dtype=f"<U{max(map(len, SolverStatus))}")
    of_all[rows] = status
    return of_all


def _worst(statuses: list[NDArray[np.str_]]) -> NDArray[np.str_]:
    found = np.stack(statuses)
    some_dense = np.where(
        (found == SolverStatus.DENSE).any(axis=0), SolverStatus.DENSE, SolverStatus.OK
    )
    return np.where((found == SolverStatus.FAILED).any(axis=0), SolverStatus.FAILED, some_dense)
