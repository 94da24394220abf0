"""TokenCut's patch graph as a binary matrix, and products with its normalized affinity.

W is 1 where the cosine similarity of two patches' features is above tau, and eps elsewhere.
W = eps + (1 - eps) A with a binary A, so a product with W is a product with A and one sum. On a
CPU, A takes one bit per entry (1.6 MB at 3600 patches; float64 W takes 104 MB). On other devices
it takes four bytes per entry (52 MB, twice that during construction) and products use the
vendor's BLAS.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny
# Number of terms that BLAS sums in float32 at a time. A single sum over 3600 terms can have a
# rounding error above the residual tolerance.
_TERMS = 512


class Graph(Protocol):
    """A batch of b graphs on n patches each.

    Attributes:
        degrees: (b, n) float32, the row sums of W.
    """

    degrees: Tensor

    def product(self, x: Tensor) -> Tensor:
        """Multiply (b, n) float32 vectors, one per image, by W."""
        ...

    def weights(self, index: int) -> NDArray[np.float64]:
        """Return W of one image, (n, n)."""
        ...


class NormalizedAffinity:
    """M = D^-1/2 W D^-1/2. Its largest eigenvalues are the smallest of L = I - M.

    Attributes:
        first: (b, n) float32, the unit eigenvector of M's largest eigenvalue, 1. Known in closed
            form: D^1/2 1, normalised.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._scale = graph.degrees.rsqrt()
        self.first = torch.nn.functional.normalize(graph.degrees.sqrt(), dim=-1)

    def product(self, x: Tensor) -> Tensor:
        """Multiply (b, n) float32 vectors, one per image, by M."""
        return self._scale * self._graph.product(self._scale * x)


def unit_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise the rows of (b, n, d) features to unit length in float32; zero rows stay zero.

    Returns:
        The rows, (b, n, d) float32, and (b,) bool: False for images with NaN or infinite
        features. All rows of such images are zero.
    """
    features = features if features.dtype == torch.float64 else features.float()
    # Divide by the largest entry first: squares of extreme values overflow or underflow float32.
    largest = torch.maximum(features.amax(dim=-1, keepdim=True), -features.amin(-1, keepdim=True))
    usable = largest.isfinite().all(dim=1)[:, 0]
    rows = (features / largest.clamp_min(_TINY)).float()
    rows /= rows.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    # On a CPU asking is cheaper than copying; elsewhere it would wait for the device.
    if rows.device.type != "cpu" or not usable.all():
        rows = torch.where(usable[:, None, None], rows, 0)
    return rows, usable


class FloatGraph:
    """A batch of graphs on any device, four bytes per entry.

    Args:
        features: (b, n, d) float32, unit or zero rows.
        tau: cosine similarity above which two patches have an edge of weight 1.
        eps: weight of all other edges.
    """

    def __init__(self, features: Tensor, tau: float, eps: float) -> None:
        self._eps = eps
        cosines = features @ features.mT
        # BLAS may round the two triangles differently; near tau the graph would be asymmetric.
        self._edges = torch.maximum(cosines, cosines.mT).gt_(tau)
        self.degrees = self.product(features.new_ones(features.shape[:2]))

    def product(self, x: Tensor) -> Tensor:
        """Multiply (b, n) float32 vectors, one per image, by W."""
        product = torch.zeros_like(x)
        for start in range(0, x.shape[-1], _TERMS):
            terms = slice(start, start + _TERMS)
            product += torch.bmm(self._edges[..., terms], x[:, terms, None])[..., 0]
        return self._eps * x.sum(dim=-1, keepdim=True) + (1 - self._eps) * product

    def weights(self, index: int) -> NDArray[np.float64]:
        """Return W of one image, (n, n)."""
        return np.where(self._edges[index].cpu().numpy(), 1.0, self._eps)
