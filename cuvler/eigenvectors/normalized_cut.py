"""Normalized cut: eigenvectors of the normalized Laplacian of the patch graph."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar, overload

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvler.eigenvectors.affinity import FloatGraph, Graph, NormalizedAffinity, unit_rows
from cuvler.eigenvectors.bit_graph import BitGraph
from cuvler.eigenvectors.lanczos import largest_eigenpairs

logger = logging.getLogger(__name__)

# Largest residual accepted. The angle to the exact eigenvector is at most the residual divided by
# the gap to the next eigenvalue: with gaps down to 2e-4 the cosine stays above 0.9999. Rounding
# of float32 products alone gives residuals of 1e-7 to 4e-7.
TOLERANCE = 2e-6
# Lanczos' residual estimates ignore the rounding of products. The margin makes the computed
# residuals pass too; falling back to the dense solver takes forty times as long.
_ESTIMATE = 0.7 * TOLERANCE
# Entries of W held at once on devices other than the CPU: 1 GiB, 20 images of 3600 patches.
_DEVICE_ENTRIES = 2**28

_ArrayT = TypeVar("_ArrayT", Tensor, NDArray[Any])


class SolverStatus(StrEnum):
    """How a graph's eigenpairs were computed."""

    OK = "ok"
    DENSE = "dense"
    """Lanczos did not converge; the vectors are from the dense solver."""
    FAILED = "failed"
    """The residual check failed; all entries are NaN."""


@dataclass(frozen=True)
class Eigenpairs(Generic[_ArrayT]):
    """Eigenpairs of L = D^-1/2 (D - W) D^-1/2, from the second smallest eigenvalue on.

    Shapes are for a batch of b graphs; a single graph has no leading b.

    Attributes:
        vectors: (b, k, n) float32, unit norm; the entry of largest magnitude is positive.
        values: (b, k) float64, ascending.
        residuals: (b, k) float64, ``||L y - lambda y||``, computed from ``vectors``.
        degrees: (b, n) float32, the diagonal of D.
        status: (b,) str, values of :class:`SolverStatus`.
    """

    vectors: _ArrayT
    values: _ArrayT
    residuals: _ArrayT
    degrees: _ArrayT
    status: NDArray[np.str_]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """(b,): the graphs without eigenpairs; see :attr:`SolverStatus.FAILED`."""
        return np.asarray(self.status == SolverStatus.FAILED)

    def generalized(self) -> _ArrayT:
        """Return the eigenvectors x = D^-1/2 y of (D - W) x = lambda D x, (b, k, n)."""
        return self.vectors / self.degrees[..., None, :] ** 0.5


@overload
def ncut(
    features: Tensor, *, tau: float = ..., eps: float = ..., k: int = ...
) -> Eigenpairs[Tensor]: ...
@overload
def ncut(
    features: NDArray[np.floating], *, tau: float = ..., eps: float = ..., k: int = ...
) -> Eigenpairs[NDArray[Any]]: ...


def ncut(
    features: Tensor | NDArray[np.floating], *, tau: float = 0.15, eps: float = 1e-5, k: int = 1
) -> Eigenpairs[Tensor] | Eigenpairs[NDArray[Any]]:
    """Solve the relaxed normalized cut (Shi & Malik 2000) of TokenCut's patch graph.

    W_ij is 1 where the cosine similarity of the features of i and j is above tau, else eps. Only
    the requested eigenvectors are computed. Each residual is checked; where the check fails, the
    dense problem is solved in float64 instead. All-zero rows have no edges, not even a self-loop;
    MaskCut zeroes patches already cut.

    For a repeated eigenvalue the returned basis is arbitrary.

    Memory in addition to the features: on a CPU, n^2 bits (1.6 MB at 3600 patches), as images are
    solved one at a time; on other devices 4 n^2 bytes per image, in batches of up to 1 GiB.

    Args:
        features: (n, d) or (b, n, d), any float type, on any device; need not be normalised.
            Cosines are computed in float32.
        tau: threshold of the cosine similarity.
        eps: weight of edges between dissimilar patches, above 0.
        k: number of eigenvectors, less than n.

    Returns:
        Arrays of the same type and on the same device as ``features``.

    Raises:
        ValueError: k or eps is out of range, or ``features`` is empty or of another rank.
    """
    if features.ndim not in (2, 3) or 0 in features.shape:
        raise ValueError(f"features must be (n, d) or (b, n, d), not {tuple(features.shape)}")
    if not 0 < k < features.shape[-2]:
        raise ValueError(f"k={k} eigenvectors of {features.shape[-2]} patches: out of range")
    if eps <= 0:
        raise ValueError(f"eps={eps} must be positive: isolated patches would have degree 0")
    batch = torch.as_tensor(features).detach()
    single = batch.ndim == 2
    parts = [_solve(part, tau, eps, k) for part in _parts(batch[None] if single else batch)]
    index = 0 if single else slice(None)
    status = np.concatenate([part.status for part in parts])[index]
    names = ("vectors", "values", "residuals", "degrees")
    tensors = {name: torch.cat([getattr(part, name) for part in parts])[index] for name in names}
    if isinstance(features, Tensor):
        return Eigenpairs(**tensors, status=status)
    return Eigenpairs(**{name: tensor.numpy() for name, tensor in tensors.items()}, status=status)


def _parts(features: Tensor) -> Iterator[Tensor]:
    """Split a batch so that its graphs fit into memory.

    On a CPU, one image at a time: its graph and basis stay in the cache, and its result does not
    depend on the batch.
    """
    on_cpu = features.device.type == "cpu"
    step = 1 if on_cpu else max(1, _DEVICE_ENTRIES // features.shape[1] ** 2)
    for start in range(0, len(features), step):
        yield features[start : start + step]


def _solve(features: Tensor, tau: float, eps: float, k: int) -> Eigenpairs[Tensor]:
    rows, usable = unit_rows(features)
    graph: Graph = (BitGraph if rows.device.type == "cpu" else FloatGraph)(rows, tau, eps)
    affinity = NormalizedAffinity(graph)
    ritz = largest_eigenpairs(affinity.product, affinity.first, k=k, tolerance=_ESTIMATE)
    vectors, values, residuals = ritz.vectors, 1 - ritz.values, ritz.residuals
    passed = (residuals <= TOLERANCE).all(dim=-1)
    # In one transfer, because each waits for the device.
    unsolved, failed = torch.stack([~passed & usable, ~usable]).cpu().numpy()
    status = np.where(failed, SolverStatus.FAILED, SolverStatus.OK)
    for index in np.flatnonzero(unsolved):
        logger.info("Lanczos stopped at residual %.1e; solving densely", residuals[index].max())
        pairs = _dense(graph.weights(int(index)), k)
        vectors[index], values[index], residuals[index] = (torch.from_numpy(x) for x in pairs)
        solved = bool((residuals[index] <= TOLERANCE).all())
        status[index] = SolverStatus.DENSE if solved else SolverStatus.FAILED
    if (status == SolverStatus.FAILED).any():
        where = torch.from_numpy(status == SolverStatus.FAILED).to(vectors.device)
        for tensor in (vectors, values, residuals):
            tensor[where] = torch.nan
    return Eigenpairs(_with_sign(vectors), values, residuals, graph.degrees, status)


def _dense(
    weights: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Solve one graph's (n, n) problem in float64: vectors (k, n), values (k,), residuals (k,).

    All are NaN where LAPACK fails.
    """
    root = np.sqrt(weights.sum(axis=1))
    laplacian = np.eye(len(weights)) - weights / np.outer(root, root)
    first = root / np.linalg.norm(root)
    # Shift the known eigenvector from eigenvalue 0 to 2, the upper end of the spectrum.
    shifted = laplacian + 2 * np.outer(first, first)
    try:
        values, vectors = scipy.linalg.eigh(shifted, subset_by_index=[0, k - 1])
    except np.linalg.LinAlgError as error:
        logger.warning("the dense solver failed: %s", error)
        nothing = np.full(k, np.nan)
        return np.full((k, len(weights)), np.nan), nothing, nothing
    # Residuals of the float32 vectors, which are what is returned.
    vectors = vectors.T.astype(np.float32).astype(np.float64)
    residuals = np.linalg.norm(vectors @ laplacian - values[:, None] * vectors, axis=1)
    return vectors, values, residuals


def _with_sign(vectors: Tensor) -> Tensor:
    """Flip each vector's sign so that its entry of largest magnitude is positive."""
    largest = vectors.abs().argmax(dim=-1, keepdim=True)
    return torch.where(vectors.gather(-1, largest) < 0, -vectors, vectors)
