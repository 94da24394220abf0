"""Compiled construction of the permutohedral lattice of points in d dimensions.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(Eurographics 2010). Corners and weights equal those of pydensecrf bit for bit in float32. It is
faster because keys are packed into one integer, points are located in blocks by loops that
vectorise, and neighbours are looked up in one direction by loops without branches.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_Ints = NDArray[np.int32]
_Keys = NDArray[np.int64]
_Corners = NDArray[np.uint32]
_Table = tuple[_Corners, np.uint64]  # corner in each slot (0: free), and the shift of a hash
_Packing = tuple[_Keys, np.int64, np.int64]
# Offsets of points from the origin of their cell, the cell, and the ranks of the offsets, each
# (d + 1, block). Cell and ranks identify a simplex.
_Simplices = tuple[Floats, _Ints, _Ints]

_BLOCK = 256
_KEY_BITS = 60
_NO_KEY = np.int64(-1)  # The key of corner 0, which stands for "none": no look-up finds it.
_HASH = np.int64(-7046029254386353131)  # 2^64 / golden ratio: Fibonacci hashing

# Numba's cache detects changes of the called function's file only, not of the files of functions
# it calls in turn: compiled functions must not call those of another module.
_compiled = njit(cache=True, error_model="numpy")
_inlined = njit(cache=True, error_model="numpy", inline="always")


class Lattice(NamedTuple):
    """n points in d dimensions, and the m lattice corners of their simplices.

    Corners are numbered from 1.

    Attributes:
        corners: (n, d + 1) uint32, the corners of each point's simplex.
        weights: (n, d + 1) float32, the point's barycentric coordinates.
        before: (d + 1, m + 1) uint32, each corner's previous neighbour along each direction; 0 if
            it is not in the lattice.
        after: likewise, the following neighbour.
    """

    corners: _Corners
    weights: Floats
    before: _Corners
    after: _Corners


@_compiled
def build_lattice(features: tuple[Floats, ...]) -> Lattice:
    """Build the lattice of n points.

    Args:
        features: d arrays of shape (n,), float32, in standard deviations of the Gaussian. A
            tuple, because d is then a compile-time constant and loops are unrolled. A lattice
            coordinate must fit into 60 / d bits: with d = 5, features up to about 200.
    """
    d, n = len(features), len(features[0])
    corners = np.empty((n, d + 1), np.uint32)
    weights = np.empty((n, d + 1), np.float32)
    table = _new_table(4 * n)
    keys = np.empty(n + (d + 1) * _BLOCK, np.int64)
    keys[0], end = _NO_KEY, 1
    packing = _packing(d)
    simplices = (
        np.empty((d + 1, _BLOCK), np.float32),
        np.empty((d + 1, _BLOCK), np.int32),
        np.empty((d + 1, _BLOCK), np.int32),
    )
    shift = np.empty(_BLOCK, np.int32)
    corner_keys = np.empty((d + 1, _BLOCK), np.int64)
    for start in range(0, n, _BLOCK):
        block = slice(start, min(start + _BLOCK, n))
        room = end + (d + 1) * _BLOCK
        if room > len(keys):
            keys = np.concatenate((keys, np.empty(len(keys), np.int64)))
        if 2 * room > len(table[0]):
            table = _new_table(4 * room)
            for corner in range(1, end):
                table[0][_find(table[0], table[1], keys, keys[corner])] = corner
        _locate(features, start, simplices, shift)
        _pack(features, simplices, packing, corner_keys)
        _weigh(features, simplices[0], weights[block])
        end = _enter(features, corner_keys, table, keys, end, corners[block])
    before, after = _neighbours(table, keys[:end], packing)
    return Lattice(corners, weights, before, after)


@_compiled
def _locate(features: tuple[Floats, ...], start: int, simplices: _Simplices, shift: _Ints) -> None:
    """Find the simplices of the block that begins at ``start``."""
    offsets, cells, ranks = simplices
    d, size = len(features), min(_BLOCK, len(features[0]) - start)
    down = np.float32(1.0 / (d + 1))
    total = offsets[0]
    total[:size] = 0
    for j in range(d, 0, -1):
        scale = np.float32(math.sqrt(2.0 / 3.0) * (d + 1) / math.sqrt((j + 1.0) * j))
        feature, offset, factor = features[j - 1], offsets[j], np.float32(j)
        for p in range(size):
            scaled = feature[start + p] * scale
            offset[p] = total[p] - factor * scaled
            total[p] += scaled
    shift[:size] = 0
    for i in range(d + 1):
        offset, cell, rank = offsets[i], cells[i], ranks[i]
        for p in range(size):
            nearest = np.rint(offset[p] * down)
            cell[p] = np.int32(nearest) * (d + 1)
            shift[p] += np.int32(nearest)
            offset[p] -= nearest * np.float32(d + 1)
            rank[p] = 0
    for i in range(d):
        for j in range(i + 1, d + 1):
            offset, other, rank, other_rank = offsets[i], offsets[j], ranks[i], ranks[j]
            for p in range(size):
                less = np.int32(offset[p] < other[p])
                rank[p] += less
                other_rank[p] += np.int32(1) - less
    for i in range(d + 1):
        offset, cell, rank = offsets[i], cells[i], ranks[i]
        for p in range(size):
            # Correct a cell off the lattice's hyperplane where the rounding error is largest.
            moved = rank[p] + shift[p]
            wrap = (np.int32(moved < 0) - np.int32(moved > d)) * np.int32(d + 1)
            rank[p] = moved + wrap
            cell[p] += wrap
            offset[p] = (offset[p] - np.float32(wrap)) * down


@_compiled
def _pack(
    features: tuple[Floats, ...], simplices: _Simplices, packing: _Packing, corner_keys: _Keys
) -> None:
    """Write the keys of the corners of a block's simplices, (d + 1, block)."""
    _, cells, ranks = simplices
    units, step, origin = packing
    d = len(features)
    first = corner_keys[0]
    first[:] = origin
    for i in range(d):
        cell, unit = cells[i], units[i] // (d + 1)
        for p in range(_BLOCK):
            first[p] += cell[p] * unit
    for r in range(1, d + 1):
        key, previous = corner_keys[r], corner_keys[r - 1]
        for p in range(_BLOCK):
            key[p] = previous[p] + step
        for i in range(d):
            rank, unit = ranks[i], units[i]
            for p in range(_BLOCK):
                key[p] -= unit if rank[p] == d + 1 - r else np.int64(0)


@_compiled
def _weigh(features: tuple[Floats, ...], offsets: Floats, weights: Floats) -> None:
    """Write the barycentric coordinates of a block's points; sorts the offsets, largest first."""
    d = len(features)
    for last in range(d, 0, -1):
        for i in range(last):
            larger, smaller = offsets[i], offsets[i + 1]
            for p in range(_BLOCK):
                one, other = larger[p], smaller[p]
                larger[p], smaller[p] = max(one, other), min(one, other)
    for p in range(len(weights)):
        weights[p, 0] = offsets[d, p] + (np.float32(1) - offsets[0, p])
        for r in range(1, d + 1):
            weights[p, r] = offsets[d - r, p] - offsets[d + 1 - r, p]


@_compiled
def _enter(
    features: tuple[Floats, ...],
    corner_keys: _Keys,
    table: _Table,
    keys: _Keys,
    end: int,
    corners: _Corners,
) -> int:
    """Write a block's corners; new corners are numbered from ``end``."""
    slots, hash_shift = table
    for p in range(len(corners)):
        for r in range(len(features) + 1):
            key = corner_keys[r, p]
            slot = _find(slots, hash_shift, keys, key)
            if slots[slot] == 0:
                slots[slot] = end
                keys[end] = key
                end += 1
            corners[p, r] = slots[slot]
    return end


@_compiled
def _packing(d: int) -> _Packing:
    """Return the packed keys of d + 1 in each coordinate, of 1 in all, and of the origin."""
    bits = _KEY_BITS // d
    units = np.zeros(d + 1, np.int64)
    step = np.int64(0)
    for i in range(d):
        units[i] = np.int64(d + 1) << np.int64(bits * i)
        step += np.int64(1) << np.int64(bits * i)
    return units, step, step << np.int64(bits - 1)


@_compiled
def _new_table(room: int) -> _Table:
    bits = 10
    while 1 << bits < room:
        bits += 1
    return np.zeros(1 << bits, np.uint32), np.uint64(64 - bits)


@_inlined
def _find(slots: _Corners, hash_shift: np.uint64, keys: _Keys, key: np.int64) -> np.uint64:
    """Return the slot of the corner with this key, or else its free slot (linear probing)."""
    slot = np.uint64(key * _HASH) >> hash_shift
    last = np.uint64(len(slots) - 1)
    while keys[slots[slot]] != key and slots[slot] != 0:
        slot = (slot + np.uint64(1)) & last
    return slot


@_compiled
def _neighbours(table: _Table, keys: _Keys, packing: _Packing) -> tuple[_Corners, _Corners]:
    """Look up the neighbours of the corners along each direction."""
    units, step, _ = packing
    slots, hash_shift = table
    before = np.zeros((len(units), len(keys)), np.uint32)
    after = np.zeros((len(units), len(keys)), np.uint32)
    collisions = np.empty(len(keys) + 1, np.uint32)
    for j in range(len(units)):
        previous, following, offset = before[j], after[j], units[j] - step
        count = np.uint64(0)
        for corner in range(len(keys)):
            neighbour = keys[corner] + offset
            first = slots[np.uint64(neighbour * _HASH) >> hash_shift]
            following[corner] = first
            # Half of the corners have a neighbour. A mispredicted branch takes longer than the
            # look-up: collisions are counted, not branched on, and resolved afterwards.
            collisions[count] = corner
            count += np.uint64((first != 0) & (keys[first] != neighbour))
        for i in range(count):
            corner = collisions[i]
            neighbour = keys[corner] + offset
            following[corner] = slots[_find(slots, hash_shift, keys, neighbour)]
        following[0] = 0
        for corner in range(len(keys)):
            previous[following[corner]] = corner
        previous[0] = 0
    return before, after
