"""The largest eigenpairs of a batch of symmetric matrices, by the band Lanczos method.

A. Ruhe, "Implementation aspects of band Lanczos algorithms for computation of eigenvalues of
large sparse symmetric matrices", Math. Comp. 33 (1979). With k starting vectors an eigenvalue
of multiplicity up to k is found as often as it is there; with one it is the plain Lanczos
method. Every vector is orthogonalised against all others, so the projection stays exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Patch graphs take 10 to 50 products; what takes more than this is served as well by the
# dense solver.
MAX_PRODUCTS = 200
# Looking costs a transfer from the device and a small dense problem: the next look comes after
# this many products, or this part of those made so far if that is more.
_LOOK_AFTER = 3
_LOOK_PART = 0.1
# The matrices have norm 1: a remainder this short has no direction left in float32.
_NOTHING = 1e-12


@dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenpairs of b matrices, the largest eigenvalue first.

    Attributes:
        vectors: (b, k, n) float32, unit length.
        values: (b, k) float64, the Rayleigh quotients.
        residuals: (b, k) float64, ``||M y - theta y||``, measured on the vectors themselves.
    """

    vectors: Tensor
    values: Tensor
    residuals: Tensor


def largest_eigenpairs(
    product: Callable[[Tensor], Tensor], known: Tensor, *, k: int, tolerance: float
) -> RitzPairs:
    """Find the k largest eigenpairs besides a known one.

    Args:
        product: multiplies (b, n) float32 vectors by the b matrices, whose norm is 1.
        known: (b, n) float32 unit vectors, the eigenvector of each matrix to leave out.
        k: how many, less than n.
        tolerance: stop when every residual is estimated to be below this.
    """
    b, n = known.shape
    steps = min(max(MAX_PRODUCTS, 3 * k), n - 1)
    rows = min(steps + k, n - 1) + 1
    basis = known.new_zeros(b, rows, n)
    basis[:, 0] = known
    for row in range(1, k + 1):
        _extend(basis, row, _random(row, basis).expand(b, n))
    projection = known.new_zeros(b, rows, steps)
    look = k
    for step in range(1, steps + 1):
        image = product(basis[:, step])
        projection[:, :, step - 1] = _extend(basis, min(step + k, rows), image)
        if step in (look, steps):
            look += max(_LOOK_AFTER, int(_LOOK_PART * step))
            weights, estimates = _ritz(projection[:, 1:, :step].cpu().double().numpy(), k)
            if estimates.max() < tolerance:
                break
    vectors = torch.from_numpy(weights).to(known) @ basis[:, 1 : step + 1]
    return _measure(product, vectors)


def _random(row: int, basis: Tensor) -> Tensor:
    # From a generator of its own, on the CPU: the same on every device, the caller's random
    # state is left alone, and an image's result does not depend on its place in a batch.
    generator = torch.Generator().manual_seed(row)
    return torch.randn(basis.shape[2], generator=generator).to(basis.device)


def _extend(basis: Tensor, filled: int, vector: Tensor) -> Tensor:
    """Orthogonalise (b, n) vectors against the filled rows; what remains becomes a new row.

    Where nothing remains (the basis spans an invariant subspace) a random row opens a new one.

    Returns:
        (b, rows) the coefficients of ``vector`` in the basis.
    """
    used = basis[:, :filled]
    coefficients = basis.new_zeros(basis.shape[:2])
    # Twice is enough (Parlett, The Symmetric Eigenvalue Problem, 6.9).
    for _ in range(2):
        part = torch.bmm(used, vector[..., None])
        vector = vector - torch.bmm(used.mT, part)[..., 0]
        coefficients[:, :filled] += part[..., 0]
    if filled == basis.shape[1]:
        return coefficients
    length = vector.norm(dim=-1, keepdim=True)
    remains = length > _NOTHING
    if not remains.all():
        length = torch.where(remains, length, 0)
        vector = torch.where(remains, vector, _random(filled, basis))
    vector = torch.nn.functional.normalize(vector, dim=-1)
    vector = vector - torch.bmm(used.mT, torch.bmm(used, vector[..., None]))[..., 0]
    basis[:, filled] = torch.nn.functional.normalize(vector, dim=-1)
    coefficients[:, filled] = length[..., 0]
    return coefficients


def _ritz(
    projection: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Solve the projected problem.

    Args:
        projection: (b, rows, m) coefficients of the images of the basis' first m vectors.
        k: how many of the largest.

    Returns:
        weights (b, k, m) of the basis' vectors in the Ritz vectors; (b, k) estimated residuals.
    """
    m = projection.shape[2]
    square = projection[:, :m]
    _, vectors = np.linalg.eigh((square + square.transpose(0, 2, 1)) / 2)
    weights = vectors[:, :, : -k - 1 : -1]
    # The part of the image of a Ritz vector that lies outside the m vectors.
    outside = projection[:, m:] @ weights
    return weights.transpose(0, 2, 1).copy(), np.linalg.norm(outside, axis=1)


def _measure(product: Callable[[Tensor], Tensor], vectors: Tensor) -> RitzPairs:
    # Sums over n terms in float32 would cost the residuals a digit.
    exact = torch.nn.functional.normalize(vectors.double(), dim=-1)
    vectors = exact.float()
    images = torch.stack([product(vector) for vector in vectors.unbind(1)], dim=1).double()
    values = (exact * images).sum(dim=-1)
    residuals = (images - values[..., None] * exact).norm(dim=-1)
    return RitzPairs(vectors, values, residuals)
