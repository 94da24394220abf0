"""The patch graph on a CPU: one bit per entry, products by table look-up."""

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORD = 64
# Rows of cosines computed at a time, so that the block stays in the cache. A multiple of _WORD.
_BLOCK = 4 * _WORD


class BitGraph:
    """One graph on a CPU, one bit per entry.

    Args:
        features: (1, n, d) float32, unit or zero rows.
        tau: cosine similarity above which two patches have an edge of weight 1.
        eps: weight of all other edges.
    """

    def __init__(self, features: Tensor, tau: float, eps: float) -> None:
        self._eps = eps
        self._edges = _threshold(features[0].numpy(), tau)
        self.degrees = self.product(torch.ones(features.shape[:2]))

    def product(self, x: Tensor) -> Tensor:
        """Multiply (1, n) float32 vectors by W."""
        return torch.from_numpy(_product(self._edges, np.float32(self._eps), x[0].numpy()))[None]

    def weights(self, index: int) -> NDArray[np.float64]:
        """Return W, (n, n); ``index`` must be 0."""
        assert index == 0
        n = self._edges.shape[1]
        octets = self._edges.T.astype("<u8", order="C").view(np.uint8)
        edges = np.unpackbits(octets, axis=1, count=n, bitorder="little")
        return np.where(edges, 1.0, self._eps)


def _threshold(features: NDArray[np.float32], tau: float) -> NDArray[np.uint64]:
    """Compare the cosines of (n, d) unit rows with tau; the result is exactly symmetric.

    Returns:
        (words, n): bit b of [w, i] is set if patches 64 w + b and i have an edge. Padding bits
        are 0.
    """
    n = len(features)
    edges = np.zeros((-(-n // _WORD), n), dtype=np.uint64)
    for start in range(0, n, _BLOCK):
        cosines = features[start : start + _BLOCK] @ features[start:].T
        _pack(cosines, np.float32(tau), edges[start // _WORD :, start:])
    _mirror(edges)
    return edges


@numba.njit(cache=True, nogil=True)
def _pack(cosines: NDArray[np.float32], tau: np.float32, edges: NDArray[np.uint64]) -> None:
    """Set the bits in edges (words, n) where cosines (m, n) are above tau."""
    for row in range(cosines.shape[0]):
        word, bit = row // _WORD, np.uint64(row % _WORD)
        for i in range(cosines.shape[1]):
            edges[word, i] |= np.uint64(cosines[row, i] > tau) << bit


@numba.njit(cache=True, nogil=True)
def _mirror(edges: NDArray[np.uint64]) -> None:
    """Overwrite the lower triangle of edges (words, n) with the transposed upper triangle.

    The cosines of the two triangles may be rounded differently.
    """
    words = len(edges)
    square = np.empty(_WORD, dtype=np.uint64)
    for word in range(words):
        rows = edges[:, word * _WORD : (word + 1) * _WORD]
        diagonal = rows[word]
        for i in range(len(diagonal)):
            diagonal[i] &= ~np.uint64(0) >> np.uint64(_WORD - 1 - i)
        _load(diagonal, square)
        _transpose(square)
        diagonal |= square[: len(diagonal)]
        for other in range(word + 1, words):
            _load(edges[word, other * _WORD : (other + 1) * _WORD], square)
            _transpose(square)
            rows[other] = square


@numba.njit(cache=True, nogil=True)
def _load(columns: NDArray[np.uint64], square: NDArray[np.uint64]) -> None:
    """Copy up to 64 words into a square and pad with zeros."""
    square[: len(columns)] = columns
    square[len(columns) :] = 0


@numba.njit(cache=True, nogil=True)
def _transpose(square: NDArray[np.uint64]) -> None:
    """Transpose 64 words of 64 bits in place (Warren, Hacker's Delight, 7-3)."""
    width, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    while width:
        step = np.int64(width)
        for i in range(_WORD):
            if not i & step:
                swap = ((square[i] >> width) ^ square[i + step]) & mask
                square[i] ^= swap << width
                square[i + step] ^= swap
        width >>= np.uint64(1)
        mask ^= mask << width


@numba.njit(cache=True, nogil=True)
def _product(
    edges: NDArray[np.uint64], eps: np.float32, x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Multiply x (n,) by W; edges are (words, n).

    The entries of x selected by a column of bits are summed by the Method of Four Russians
    (Arlazarov et al. 1970): the 256 possible sums of every eight entries are tabulated, and each
    byte of edges is a look-up. At one bit per entry the graph fits the cache; at one byte it is
    limited by memory bandwidth. The order of summation is the same on all processors.
    """
    words, n = edges.shape
    padded = np.zeros(words * _WORD, dtype=np.float32)
    padded[:n] = x
    sums = np.zeros(n, dtype=np.float32)
    table = np.empty((8, 256), dtype=np.float32)
    byte = np.uint64(255)
    for word in range(words):
        for part in range(8):
            _tabulate(padded[_WORD * word + 8 * part :], table[part])
        t0, t1, t2, t3, t4, t5, t6, t7 = table
        for i in range(n):
            bits = edges[word, i]
            sum01 = t0[bits & byte] + t1[bits >> np.uint64(8) & byte]
            sum23 = t2[bits >> np.uint64(16) & byte] + t3[bits >> np.uint64(24) & byte]
            sum45 = t4[bits >> np.uint64(32) & byte] + t5[bits >> np.uint64(40) & byte]
            sum67 = t6[bits >> np.uint64(48) & byte] + t7[bits >> np.uint64(56)]
            sums[i] += (sum01 + sum23) + (sum45 + sum67)
    total = 0.0
    for i in range(n):
        total += x[i]
    rest, share = eps * np.float32(total), np.float32(1) - eps
    for i in range(n):
        sums[i] = rest + share * sums[i]
    return sums


@numba.njit(cache=True, nogil=True)
def _tabulate(x: NDArray[np.float32], table: NDArray[np.float32]) -> None:
    """Write to table (256,) the sums of the first eight entries of x selected by the index."""
    table[0] = 0
    for bit in range(8):
        size = 1 << bit
        for index in range(size):
            table[size + index] = table[index] + x[bit]
