"""The patch graph of TokenCut, kept as a binary matrix, and products with its Laplacian.

W is 1 where two patches' features have a cosine over tau and eps elsewhere, so
W = eps + (1 - eps) A with A binary: a product with W is a product with A and one sum. A
takes one byte an entry on a CPU (13 MB at 3600 patches, where float64 W takes 104 MB) and
four on other devices (52 MB), where the product is left to the vendor's BLAS.
"""

from typing import Protocol

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Rows of cosines in flight at once: a block of floats that stays in the cache.
_BLOCK = 256


class Graph(Protocol):
    """A batch of b graphs on n patches each.

    Attributes:
        degrees: (b, n) float32, the row sums of W.
    """

    degrees: Tensor

    def product(self, x: Tensor) -> Tensor:
        """Multiply (b, n) float32 vectors by W, one an image."""
        ...

    def weights(self, index: int) -> NDArray[np.float64]:
        """Give one image's W, (n, n)."""
        ...


class NormalizedAffinity:
    """M = D^-1/2 W D^-1/2, whose largest eigenvalues are the smallest of L = 1 - M.

    Attributes:
        first: (b, n) float32, the eigenvector of M's largest eigenvalue, 1: D^1/2 1, of unit
            length. It is known, so nobody needs to compute it.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._scale = graph.degrees.rsqrt()
        self.first = torch.nn.functional.normalize(graph.degrees.sqrt(), dim=-1)

    def product(self, x: Tensor) -> Tensor:
        """Multiply (b, n) float32 vectors by M, one an image."""
        return self._scale * self._graph.product(self._scale * x)


def unit_rows(features: Tensor) -> Tensor:
    """Scale the rows of (..., n, d) to unit length in float32; rows of zeros stay zero."""
    features = features if features.dtype == torch.float64 else features.float()
    # By the largest entry first: squares of very large or very small features leave float32.
    largest = features.abs().amax(dim=-1, keepdim=True)
    scaled = (features / torch.where(largest > 0, largest, 1)).float()
    return torch.nn.functional.normalize(scaled, dim=-1)


class ByteGraph:
    """One graph on a CPU, a byte an entry.

    Args:
        features: (1, n, d) float32, unit or zero rows.
        tau: the cosine over which two patches are joined.
        eps: the weight of the others.
    """

    def __init__(self, features: Tensor, tau: float, eps: float) -> None:
        self._eps = eps
        joined = _threshold_symmetric(features[0], tau)
        self._joined: NDArray[np.uint8] = joined.view(torch.uint8).numpy()
        self.degrees = self.product(torch.ones(1, len(joined)))

    def product(self, x: Tensor) -> Tensor:
        """Multiply (1, n) float32 vectors by W."""
        product = torch.empty_like(x)
        _masked_sums(self._joined, x[0].contiguous().numpy(), product[0].numpy())
        return self._eps * x.sum(dim=-1, keepdim=True) + (1 - self._eps) * product

    def weights(self, index: int) -> NDArray[np.float64]:
        """Give W, (n, n); ``index`` is 0."""
        assert index == 0
        return np.where(self._joined, 1.0, self._eps)


def _threshold_symmetric(features: Tensor, tau: float) -> Tensor:
    """Compare the cosines of (n, d) unit rows with tau: (n, n) bool, exactly symmetric."""
    n = len(features)
    joined = torch.empty(n, n, dtype=torch.bool)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        block = features[start:stop] @ features[start:].T > tau
        joined[start:stop, start:] = block
        joined[stop:, start:stop] = block[:, stop - start :].T
    return joined


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"})
def _masked_sums(
    joined: NDArray[np.uint8], x: NDArray[np.float32], sums: NDArray[np.float32]
) -> None:
    """Sum the entries of x (n,) that each row of joined (n, n), 0 or 1, selects.

    A byte an entry makes this three times as fast as a float32 matrix-vector product, which
    waits for memory.
    """
    for i in range(joined.shape[0]):
        total = np.float32(0)
        for j in range(joined.shape[1]):
            total += x[j] if joined[i, j] else np.float32(0)
        sums[i] = total


class FloatGraph:
    """A batch of graphs on any device, four bytes an entry.

    Args:
        features: (b, n, d) float32, unit or zero rows.
        tau: the cosine over which two patches are joined.
        eps: the weight of the others.
    """

    def __init__(self, features: Tensor, tau: float, eps: float) -> None:
        self._eps = eps
        self._joined = (features @ features.mT).gt_(tau)
        self.degrees = self.product(features.new_ones(features.shape[:2]))

    def product(self, x: Tensor) -> Tensor:
        """Multiply (b, n) float32 vectors by W, one an image."""
        product = torch.bmm(self._joined, x[..., None])[..., 0]
        return self._eps * x.sum(dim=-1, keepdim=True) + (1 - self._eps) * product

    def weights(self, index: int) -> NDArray[np.float64]:
        """Give one image's W, (n, n)."""
        return np.where(self._joined[index].cpu().numpy(), 1.0, self._eps)
