"""Normalized cut: eigenvectors of the normalized Laplacian of a graph on patches."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
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

# Residuals below this pass. The angle to the eigenvector is at most the residual over the gap
# to the next eigenvalue, so that gaps down to 2e-4 keep a cosine of 0.9999; float32 products
# leave 1e-7 to 4e-7.
TOLERANCE = 2e-6
# Lanczos estimates residuals without the rounding of products: it stops early enough that what is
# measured passes too, for the dense solver takes forty times as long.
_ESTIMATE = 0.7 * TOLERANCE
# Entries of W in memory at once on devices other than the CPU: 20 images of 3600 patches, 1 GiB.
_DEVICE_ENTRIES = 2**28

ArrayT = TypeVar("ArrayT", Tensor, NDArray[Any])


@dataclass(frozen=True)
class Eigenpairs(Generic[ArrayT]):
    """Eigenpairs of L = D^-1/2 (D - W) D^-1/2, from the second smallest eigenvalue on.

    Shapes are those of a batch of b graphs; for a single graph the leading b is absent.

    Attributes:
        vectors: (b, k, n) float32, unit length; the entry of largest magnitude is positive.
        values: (b, k) float64, ascending.
        residuals: (b, k) float64, ``||L y - lambda y||``, measured on ``vectors``.
        degrees: (b, n) float32, the diagonal of D.
        status: (b,) str: ``ok``, ``dense`` (Lanczos did not converge and the dense solver gave
            the vectors), or ``failed`` (no vector passed the check: all entries are NaN).
    """

    vectors: ArrayT
    values: ArrayT
    residuals: ArrayT
    degrees: ArrayT
    status: NDArray[np.str_]

    def generalized(self) -> ArrayT:
        """Give D^-1/2 y, the eigenvectors of (D - W) x = lambda D x, (b, k, n), as MaskCut uses."""
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
    """Solve the relaxed normalized cut (Shi & Malik 2000) of TokenCut's graph on patches.

    W_ij = 1 where the cosine of the features of i and j is over tau, else eps. Only the wanted
    eigenvectors are computed; each one's residual is checked, and where that fails the dense
    problem is solved in float64 instead. A patch whose features are all zero is joined to
    nothing, itself included (that is how MaskCut takes patches out).

    Where an eigenvalue is repeated, any basis of its eigenspace may come out.

    Beside the features an image takes n^2 bits for its graph, 1.6 MB at 3600 patches, on the CPU,
    where images are solved one after the other; on a GPU 4 n^2 bytes, as many images at a time
    as fit into 1 GiB.

    Args:
        features: (n, d) or (b, n, d), any float type, on any device; need not be normalised.
            Cosines are float32 whatever the type.
        tau: the threshold.
        eps: the weight of patches that are not alike, over 0.
        k: how many eigenvectors, less than n.

    Returns:
        Arrays of the kind, and on the device, of ``features``.

    Raises:
        ValueError: k or eps is out of range, or features has another shape or no entries.
    """
    if features.ndim not in (2, 3) or 0 in features.shape:
        raise ValueError(f"features must be (n, d) or (b, n, d), not {tuple(features.shape)}")
    if not 0 < k < features.shape[-2]:
        raise ValueError(f"k={k} eigenvectors of {features.shape[-2]} patches")
    if eps <= 0:
        raise ValueError(f"eps={eps}: patches joined to nothing would have degree 0")
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
    """Cut a batch so that its graphs fit into memory.

    On a CPU one image at a time: its graph and basis stay in the caches, and its result does
    not depend on the batch.
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
    status = np.where((passed & usable).cpu().numpy(), "ok", "failed")
    for index in (~passed & usable).nonzero()[:, 0].tolist():
        logger.info("Lanczos stopped at residual %.1e; solving densely", residuals[index].max())
        pairs = _dense(graph.weights(index), k)
        vectors[index], values[index], residuals[index] = (torch.from_numpy(x) for x in pairs)
        if (residuals[index] <= TOLERANCE).all():
            status[index] = "dense"
    failed = torch.from_numpy(status == "failed").to(vectors.device)
    for tensor in (vectors, values, residuals):
        tensor[failed] = torch.nan
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
    # The known eigenvector moves from 0 to the end of the spectrum, which is at most 2.
    shifted = laplacian + 2 * np.outer(first, first)
    try:
        values, vectors = scipy.linalg.eigh(shifted, subset_by_index=[0, k - 1])
    except np.linalg.LinAlgError as error:
        logger.warning("the dense solver failed: %s", error)
        nothing = np.full(k, np.nan)
        return np.full((k, len(weights)), np.nan), nothing, nothing
    # As it will be handed on: in float32.
    vectors = vectors.T.astype(np.float32).astype(np.float64)
    residuals = np.linalg.norm(vectors @ laplacian - values[:, None] * vectors, axis=1)
    return vectors, values, residuals


def _with_sign(vectors: Tensor) -> Tensor:
    """Turn each vector so that its entry of largest magnitude is positive."""
    largest = vectors.abs().argmax(dim=-1, keepdim=True)
    return torch.where(vectors.gather(-1, largest) < 0, -vectors, vectors)
