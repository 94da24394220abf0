"""The patch graph of TokenCut, kept as a binary matrix, and products with its Laplacian.

W is 1 where two patches' features have a cosine over tau and eps elsewhere, so
W = eps + (1 - eps) A with A binary: a product with W is a product with A and one sum. A
takes one bit an entry on a CPU (1.6 MB at 3600 patches, where float64 W takes 104 MB) and
four bytes on other devices (52 MB, twice that while it is built), where the product is left to
the vendor's BLAS.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny
# Terms a BLAS adds up in float32 before the sums are put together: one after the other, 3600 terms
# can be off by more than the residual that eigenvectors are checked for.
_TERMS = 512


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
        product = torch.zeros_like(x)
        for start in range(0, x.shape[-1], _TERMS):
            terms = slice(start, start + _TERMS)
            product += torch.bmm(self._joined[..., terms], x[:, terms, None])[..., 0]
        return self._eps * x.sum(dim=-1, keepdim=True) + (1 - self._eps) * product

    def weights(self, index: int) -> NDArray[np.float64]:
        """Give one image's W, (n, n)."""
        return np.where(self._joined[index].cpu().numpy(), 1.0, self._eps)
