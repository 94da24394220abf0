"""The patch graph of TokenCut, kept as a binary matrix, and products with its Laplacian.

W is 1 where two patches' features have a cosine over tau and eps elsewhere, so
W = eps + (1 - eps) A with A binary: a product with W is a product with A and one sum. A
takes one byte an entry on a CPU (13 MB at 3600 patches, where float64 W takes 104 MB) and
four on other devices (52 MB, twice that while it is built), where the product is left to the
vendor's BLAS.
"""

from typing import Protocol

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Rows of cosines in flight at once: a block of floats that stays in the cache.
_BLOCK = 256
_TINY = torch.finfo(torch.float32).tiny


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


def unit_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the rows of (b, n, d) features to unit length in float32; rows of zeros stay zero.

    Returns:
        (b, n, d) float32 rows, and (b,) bool: false for images with entries that are no numbers,
        whose rows are all zero.
    """
    features = features if features.dtype == torch.float64 else features.float()
    # By the largest entry first: squares of very large or very small features leave float32.
    largest = features.abs().amax(dim=-1, keepdim=True)
    usable = largest.isfinite().all(dim=1)[:, 0]
    rows = torch.nn.functional.normalize((features / largest.clamp_min(_TINY)).float(), dim=-1)
    if not usable.all():
        rows = torch.where(usable[:, None, None], rows, 0)
    return rows, usable


class ByteGraph:
    """One graph on a CPU, a byte an entry.

    Args:
        features: (1, n, d) float32, unit or zero rows.
        tau: the cosine over which two patches are joined.
        eps: the weight of the others.
    """

    def __init__(self, features: Tensor, tau: float, eps: float) -> None:
        self._eps = eps
        self._joined = _threshold(features[0], tau)
        self.degrees = self.product(torch.ones(features.shape[:2]))

    def product(self, x: Tensor) -> Tensor:
        """Multiply (1, n) float32 vectors by W."""
        sums = np.empty(len(self._joined), dtype=np.float32)
        _masked_sums(self._joined, x[0].contiguous().numpy(), sums)
        product = torch.from_numpy(sums[: x.shape[1]])
        return self._eps * x.sum(dim=-1, keepdim=True) + (1 - self._eps) * product

    def weights(self, index: int) -> NDArray[np.float64]:
        """Give W, (n, n); ``index`` is 0."""
        assert index == 0
        return np.where(self._joined[: self._joined.shape[1]], 1.0, self._eps)


def _threshold(features: Tensor, tau: float) -> NDArray[np.uint8]:
    """Compare the cosines of (n, d) unit rows with tau: 0 or 1, exactly symmetric.

    Rows of zeros are added to n, up to a multiple of four.
    """
    n = len(features)
    joined = torch.zeros(n + -n % 4, n, dtype=torch.bool)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        torch.gt(features[start:stop] @ features[start:].T, tau, out=joined[start:stop, start:])
        joined[stop:n, start:stop] = joined[start:stop, stop:].T
    return joined.view(torch.uint8).numpy()


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"})
def _masked_sums(
    joined: NDArray[np.uint8], x: NDArray[np.float32], sums: NDArray[np.float32]
) -> None:
    """Sum the entries of x (n,) that each row of joined (4 m, n), 0 or 1, selects.

    A byte an entry, and four rows for each entry of x that is loaded, make this four times as
    fast as a float32 matrix-vector product, which waits for memory.
    """
    zero = np.float32(0)
    for i in range(0, joined.shape[0], 4):
        sum0 = sum1 = sum2 = sum3 = zero
        for j in range(joined.shape[1]):
            sum0 += x[j] if joined[i, j] else zero
            sum1 += x[j] if joined[i + 1, j] else zero
            sum2 += x[j] if joined[i + 2, j] else zero
            sum3 += x[j] if joined[i + 3, j] else zero
        sums[i], sums[i + 1], sums[i + 2], sums[i + 3] = sum0, sum1, sum2, sum3


class FloatGraph:
    """A batch of graphs on any device, four bytes an entry.

    Args:
        features: (b, n, d) float32, unit or zero rows.
        tau: the cosine over which two patches are joined.
        eps: the weight of the others.
    """

    def __init__(self, features: Tensor, tau: float, eps: float) -> None:
        self._eps = eps
        cosines = features @ features.mT
        # A BLAS may round the two halves differently; at tau that is not a symmetric graph.
        self._joined = torch.maximum(cosines, cosines.mT).gt_(tau)
        self.degrees = self.product(features.new_ones(features.shape[:2]))

    def product(self, x: Tensor) -> Tensor:
        """Multiply (b, n) float32 vectors by W, one an image."""
        product = torch.bmm(self._joined, x[..., None])[..., 0]
        return self._eps * x.sum(dim=-1, keepdim=True) + (1 - self._eps) * product

    def weights(self, index: int) -> NDArray[np.float64]:
        """Give one image's W, (n, n)."""
        return np.where(self._joined[index].cpu().numpy(), 1.0, self._eps)
