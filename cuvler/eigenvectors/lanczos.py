"""Largest eigenpairs of a batch of symmetric matrices by the band Lanczos method.

A. Ruhe, "Implementation aspects of band Lanczos algorithms for computation of eigenvalues of
large sparse symmetric matrices", Math. Comp. 33 (1979). With k starting vectors,
eigenvalues of multiplicity up to k are found with their multiplicity; k = 1 is the standard
Lanczos method. Every basis vector is reorthogonalised against all previous ones.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvler.devices import on_device

# Patch graphs take 10 to 50 products. Beyond this limit the dense solver is as fast.
MAX_PRODUCTS = 200
# A check of the convergence costs a transfer from the device, which waits for it, and a small dense
# eigenproblem. Patch graphs need more than eight products per eigenpair; from then on each
# reduces the residual by about 10^0.8, which gives the product at which to check again. Graphs that
# converge slowly are checked every 5 % of their products.
_FIRST_CHECK = 8
_GAIN = 0.8
_CHECK_FRACTION = 0.05
# Norm treated as zero in float32; the matrices have norm 1.
_ZERO_NORM = 1e-12


@dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenpairs of b matrices, largest eigenvalue first.

    Attributes:
        vectors: (b, k, n) float32, unit length.
        values: (b, k) float64, the Rayleigh quotients.
        residuals: (b, k) float64, ``||M y - theta y||``, computed from ``vectors``.
    """

    vectors: Tensor
    values: Tensor
    residuals: Tensor


def largest_eigenpairs(
    product: Callable[[Tensor], Tensor], known: Tensor, *, k: int, tolerance: float
) -> RitzPairs:
    """Compute the k largest eigenpairs, excluding a known one.

    Args:
        product: multiplies (b, n) float32 vectors by the b matrices, which have norm 1.
        known: (b, n) float32 unit vectors, the eigenvector of each matrix to exclude.
        k: number of eigenpairs, less than n.
        tolerance: stop when every estimated residual is below this value.
    """
    b, n = known.shape
    steps = min(max(MAX_PRODUCTS, 3 * k), n - 1)
    rows = min(steps + k, n - 1) + 1
    basis = known.new_empty(b, rows, n)
    basis[:, 0] = known
    random = _random(rows, n, known.device)
    projection = known.new_zeros(b, rows, steps)
    for row in range(1, k + 1):
        _extend(basis, row, random[row].expand(b, n), torch.empty_like(projection[:, :, 0]), random)
    next_check = _FIRST_CHECK * k
    for step in range(1, steps + 1):
        image = product(basis[:, step])
        _extend(basis, min(step + k, rows), image, projection[:, :, step - 1], random)
        if step in (next_check, steps):
            weights, estimates = _ritz(projection[:, 1:, :step].cpu().double().numpy(), k)
            if estimates.max() < tolerance:
                break
            next_check = step + _products_missing(step, estimates.max() / tolerance, k)
    vectors = on_device(torch.from_numpy(weights).float(), known.device) @ basis[:, 1 : step + 1]
    return _measure(product, vectors)


def _products_missing(step: int, excess: float, k: int) -> int:
    """Predict the number of products until the residuals are ``excess`` times smaller."""
    if not math.isfinite(excess):
        return _FIRST_CHECK * k
    return max(1, math.ceil(k * math.log10(excess) / _GAIN), int(_CHECK_FRACTION * step))


@lru_cache(maxsize=4)
def _random(rows: int, n: int, device: torch.device) -> Tensor:
    """Return (rows, n) random vectors."""
    # Separate CPU generators: a vector is the same on every device and for every image of a batch,
    # and the global random state does not change. All at once, because a transfer waits.
    vectors = [torch.randn(n, generator=torch.Generator().manual_seed(row)) for row in range(rows)]
    return torch.stack(vectors).to(device)


def _extend(
    basis: Tensor, filled: int, vector: Tensor, coefficients: Tensor, random: Tensor
) -> None:
    """Orthogonalise (b, n) vectors against the filled rows and append them as the next row.

    Where the remainder is zero (the basis spans an invariant subspace), that row of ``random`` is
    appended instead.

    Args:
        basis: (b, rows, n).
        filled: number of rows in use; when all are, nothing is appended.
        vector: (b, n).
        coefficients: (b, rows), overwritten with those of ``vector`` in the filled and new rows.
        random: (rows, n).
    """
    used = basis[:, :filled]
    vector, coefficients[:, :filled] = _orthogonalise(used, vector)
    if filled == basis.shape[1]:
        return
    length = vector.norm(dim=-1, keepdim=True)
    remains = length > _ZERO_NORM
    coefficients[:, filled] = torch.where(remains, length, 0)[:, 0]
    # On a CPU asking is cheap; elsewhere to ask whether any remainder is zero would wait for the
    # device.
    if vector.device.type != "cpu" or not remains.all():
        vector = torch.where(remains, vector, random[filled])
        vector = torch.nn.functional.normalize(vector, dim=-1)
        vector = vector - torch.bmm(used.mT, torch.bmm(used, vector[..., None]))[..., 0]
        length = vector.norm(dim=-1, keepdim=True)
    basis[:, filled] = vector / length


def _orthogonalise(used: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Orthogonalise (b, n) vectors against rows (b, m, n); also return the coefficients (b, m)."""
    # Twice is enough (Parlett, The Symmetric Eigenvalue Problem, 6.9).
    if used.device.type == "cpu" and len(used) == 1:
        # NumPy's calls take a third of the time of torch's: with 900 patches, 5 % of the solver.
        rows, row = used[0].numpy(), vector[0].numpy()
        part = rows @ row
        row = row - part @ rows
        again = rows @ row
        row = row - again @ rows
        return torch.from_numpy(row)[None], torch.from_numpy(part + again)[None]
    rest = vector[..., None]
    first = torch.bmm(used, rest)
    rest = torch.baddbmm(rest, used.mT, first, alpha=-1)
    second = torch.bmm(used, rest)
    rest = torch.baddbmm(rest, used.mT, second, alpha=-1)
    return rest[..., 0], (first + second)[..., 0]


def _ritz(
    projection: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the k largest Ritz vectors of the projected problem.

    Args:
        projection: (b, rows, m), coefficients of the products of the first m basis vectors.
        k: number of Ritz vectors.

    Returns:
        The Ritz vectors' coefficients in the basis (b, k, m), and their estimated residuals
        (b, k).
    """
    m = projection.shape[2]
    square = projection[:, :m]
    _, vectors = np.linalg.eigh((square + square.transpose(0, 2, 1)) / 2)
    weights = vectors[:, :, : -k - 1 : -1]
    # The component of the product outside the span of the m basis vectors.
    outside = projection[:, m:] @ weights
    return weights.transpose(0, 2, 1).copy(), np.linalg.norm(outside, axis=1)


def _measure(product: Callable[[Tensor], Tensor], vectors: Tensor) -> RitzPairs:
    # In float64: float32 sums over n terms lose one digit of the residuals.
    exact = torch.nn.functional.normalize(vectors.double(), dim=-1)
    vectors = exact.float()
    images = torch.stack([product(vector) for vector in vectors.unbind(1)], dim=1).double()
    values = (exact * images).sum(dim=-1)
    residuals = (images - values[..., None] * exact).norm(dim=-1)
    return RitzPairs(vectors, values, residuals)
