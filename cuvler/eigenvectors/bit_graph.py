"""The patch graph on a CPU: a bit an entry, and products by table."""

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORD = 64
# Rows of cosines in flight at once: a block of floats that stays in the cache. Whole words.
_BLOCK = 4 * _WORD


class BitGraph:
    """One graph on a CPU, a bit an entry.

    Args:
        features: (1, n, d) float32, unit or zero rows.
        tau: the cosine over which two patches are joined.
        eps: the weight of the others.
    """

    def __init__(self, features: Tensor, tau: float, eps: float) -> None:
        self._eps = eps
        self._joined = _threshold(features[0].numpy(), tau)
        self.degrees = self.product(torch.ones(features.shape[:2]))

    def product(self, x: Tensor) -> Tensor:
        """Multiply (1, n) float32 vectors by W."""
        words, n = self._joined.shape
        padded = np.zeros(words * _WORD, dtype=np.float32)
        padded[:n] = x[0].numpy()
        product = torch.from_numpy(_selected_sums(self._joined, padded))
        return self._eps * x.sum(dim=-1, keepdim=True) + (1 - self._eps) * product

    def weights(self, index: int) -> NDArray[np.float64]:
        """Give W, (n, n); ``index`` is 0."""
        assert index == 0
        n = self._joined.shape[1]
        octets = self._joined.T.astype("<u8", order="C").view(np.uint8)
        joined = np.unpackbits(octets, axis=1, count=n, bitorder="little")
        return np.where(joined, 1.0, self._eps)


def _threshold(features: NDArray[np.float32], tau: float) -> NDArray[np.uint64]:
    """Compare the cosines of (n, d) unit rows with tau, exactly symmetric.

    Returns:
        (words, n): bit b of [w, i] says whether patches 64 w + b and i are joined. Bits for
        patches from n on are 0.
    """
    n = len(features)
    joined = np.zeros((-(-n // _WORD), n), dtype=np.uint64)
    for start in range(0, n, _BLOCK):
        cosines = features[start : start + _BLOCK] @ features[start:].T
        _pack(cosines, np.float32(tau), joined[start // _WORD :, start:])
    _mirror(joined)
    return joined


@numba.njit(cache=True, nogil=True)
def _pack(cosines: NDArray[np.float32], tau: np.float32, joined: NDArray[np.uint64]) -> None:
    """Set the bits of the entries of cosines (m, n) that are over tau in joined (words, n)."""
    for row in range(cosines.shape[0]):
        word, bit = row // _WORD, np.uint64(row % _WORD)
        for i in range(cosines.shape[1]):
            joined[word, i] |= np.uint64(cosines[row, i] > tau) << bit


@numba.njit(cache=True, nogil=True)
def _mirror(joined: NDArray[np.uint64]) -> None:
    """Make the lower triangle of joined (words, n) the transpose of its upper one.

    The cosines of the two may have been rounded differently.
    """
    words = len(joined)
    square = np.empty(_WORD, dtype=np.uint64)
    for word in range(words):
        rows = joined[:, word * _WORD : (word + 1) * _WORD]
        diagonal = rows[word]
        for i in range(len(diagonal)):
            diagonal[i] &= ~np.uint64(0) >> np.uint64(_WORD - 1 - i)
        _load(diagonal, square)
        _transpose(square)
        diagonal |= square[: len(diagonal)]
        for other in range(word + 1, words):
            _load(joined[word, other * _WORD : (other + 1) * _WORD], square)
            _transpose(square)
            rows[other] = square


@numba.njit(cache=True, nogil=True)
def _load(columns: NDArray[np.uint64], square: NDArray[np.uint64]) -> None:
    """Put up to 64 words into a square, zeros after them."""
    square[: len(columns)] = columns
    square[len(columns) :] = 0


@numba.njit(cache=True, nogil=True)
def _transpose(square: NDArray[np.uint64]) -> None:
    """Transpose 64 words of 64 bits in place, by halves (Warren, Hacker's Delight, 7-3)."""
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
def _selected_sums(joined: NDArray[np.uint64], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum the entries of x (64 words,) that the bits of each column of joined (words, n) select.

    The method of four Russians (Arlazarov et al. 1970): the 256 sums of any eight entries of x
    are tabulated, and each byte of joined looks its own up. The bits stay in the cache, where a
    byte an entry waits for memory, and the order of summation is the same on all processors.
    """
    words, n = joined.shape
    sums = np.zeros(n, dtype=np.float32)
    table = np.empty((8, 256), dtype=np.float32)
    byte = np.uint64(255)
    for word in range(words):
        for part in range(8):
            _tabulate(x[_WORD * word + 8 * part :], table[part])
        t0, t1, t2, t3, t4, t5, t6, t7 = table
        for i in range(n):
            bits = joined[word, i]
            sum01 = t0[bits & byte] + t1[bits >> np.uint64(8) & byte]
            sum23 = t2[bits >> np.uint64(16) & byte] + t3[bits >> np.uint64(24) & byte]
            sum45 = t4[bits >> np.uint64(32) & byte] + t5[bits >> np.uint64(40) & byte]
            sum67 = t6[bits >> np.uint64(48) & byte] + t7[bits >> np.uint64(56)]
            sums[i] += (sum01 + sum23) + (sum45 + sum67)
    return sums


@numba.njit(cache=True, nogil=True)
def _tabulate(x: NDArray[np.float32], table: NDArray[np.float32]) -> None:
    """Put into table (256,) the sums of the first eight entries of x that its index selects."""
    table[0] = 0
    for bit in range(8):
        size = 1 << bit
        for index in range(size):
            table[size + index] = table[index] + x[bit]
