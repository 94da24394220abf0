"""Compiled construction of the permutohedral lattice of points in d dimensions.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(Eurographics 2010). Corners and weights equal those of pydensecrf bit for bit in float32. It is
faster because keys are packed into one integer, points are located in blocks by loops that
vectorise, and neighbours are looked up in one direction and stored as chains.
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
_Table = tuple[_Ints, np.uint64]  # corner in each slot (-1: free), and the shift of a hash
_Packing = tuple[_Keys, np.int64, np.int64]
# Offsets of points from the origin of their cell, the cell, and the ranks of the offsets, each
# (d + 1, block). Cell and ranks identify a simplex.
_Simplices = tuple[Floats, _Ints, _Ints]

_BLOCK = 1024  # Points processed at a time, so that their scratch arrays stay in the cache.
_KEY_BITS = 60
_COLLISION = np.int32(-2)
_HASH = np.int64(-7046029254386353131)  # 2^64 / golden ratio: Fibonacci hashing

# Numba's cache detects changes of the called function's file only, not of the files of functions
# it calls in turn: compiled functions must not call those of another module.
_compiled = njit(cache=True, error_model="numpy")
_inlined = njit(cache=True, error_model="numpy", inline="always")


class Lattice(NamedTuple):
    """n points in d dimensions, and the m lattice corners of their simplices.

    Attributes:
        corners: (n, d + 1) uint32, the corners of each point's simplex.
        weights: (n, d + 1) float32, the point's barycentric coordinates.
        chains: uint32, runs of neighbouring corners along a direction, each terminated by m.
        starts: (d + 2,) int64, the start of each direction's runs in ``chains``.
        size: m, the number of corners.
    """

    corners: _Corners
    weights: Floats
    chains: _Corners
    starts: _Keys
    size: int


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
    table = _new_table(2 * n)
    keys = np.empty(n + (d + 1) * _BLOCK, np.int64)
    count = 0
    packing = _packing(d)
    simplices = (
        np.empty((d + 1, _BLOCK), np.float32),
        np.empty((d + 1, _BLOCK), np.int32),
        np.empty((d + 1, _BLOCK), np.int32),
    )
    shift = np.empty(_BLOCK, np.int32)
    for start in range(0, n, _BLOCK):
        block = slice(start, min(start + _BLOCK, n))
        room = count + (d + 1) * _BLOCK
        if room > len(keys):
            keys = np.concatenate((keys, np.empty(len(keys), np.int64)))
        if 2 * room > len(table[0]):
            table = _new_table(4 * room)
            for corner in range(count):
                table[0][_find(table[0], table[1], keys, keys[corner])] = corner
        _locate(features, start, simplices, shift)
        count = _enter(
            features, simplices, packing, table, keys, count, corners[block], weights[block]
        )
    chains, starts = _chains(table, keys[:count], packing)
    return Lattice(corners, weights, chains, starts, count)


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
def _enter(
    features: tuple[Floats, ...],
    simplices: _Simplices,
    packing: _Packing,
    table: _Table,
    keys: _Keys,
    count: int,
    corners: _Corners,
    weights: Floats,
) -> int:
    """Write a block's corners and weights; new corners are numbered from ``count``."""
    offsets, cells, ranks = simplices
    units, step, origin = packing
    slots, hash_shift = table
    d = len(features)
    offset = np.empty(d + 1, np.float32)
    unit = np.empty(d + 1, np.int64)
    last_key = np.full(d + 1, -1, np.int64)
    last_corner = np.zeros(d + 1, np.uint32)
    for p in range(len(corners)):
        key = origin
        for i in range(d):
            key += np.int64(cells[i, p]) * (units[i] // (d + 1))
        for i in range(d + 1):
            offset[ranks[i, p]] = offsets[i, p]
            unit[ranks[i, p]] = units[i]
        weights[p, 0] = offset[d] + (np.float32(1) - offset[0])
        for r in range(1, d + 1):
            weights[p, r] = offset[d - r] - offset[d + 1 - r]
        for r in range(d + 1):
            if r > 0:
                key += step - unit[d + 1 - r]
            # Adjacent points often share corners: look up only changed keys.
            if key != last_key[r]:
                slot = _find(slots, hash_shift, keys, key)
                if slots[slot] < 0:
                    slots[slot] = count
                    keys[count] = key
                    count += 1
                last_key[r] = key
                last_corner[r] = slots[slot]
            corners[p, r] = last_corner[r]
    return count


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
    return np.full(1 << bits, -1, np.int32), np.uint64(64 - bits)


@_inlined
def _find(slots: _Ints, hash_shift: np.uint64, keys: _Keys, key: np.int64) -> np.uint64:
    """Return the slot of the corner with this key, or else its free slot (linear probing)."""
    slot = np.uint64(key * _HASH) >> hash_shift
    last = np.uint64(len(slots) - 1)
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & last
    return slot


@_compiled
def _chains(table: _Table, keys: _Keys, packing: _Packing) -> tuple[_Corners, _Keys]:
    """Build the chains of neighbours along each direction."""
    units, step, _ = packing
    slots, hash_shift = table
    m, directions = len(keys), len(units)
    after = np.empty(m, np.int32)
    has_previous = np.empty(m + 1, np.bool_)
    # A chain has at least two corners and a terminator: 3/2 entries per corner suffice.
    chains = np.empty(directions * (m + m // 2 + 1), np.uint32)
    starts = np.zeros(directions + 1, np.int64)
    end = 0
    for j in range(directions):
        has_previous[:] = False
        for corner in range(m):
            neighbour = keys[corner] + units[j] - step
            # Branchless: half of the corners have a neighbour, and a mispredicted branch takes
            # longer than the look-up.
            first = slots[np.uint64(neighbour * _HASH) >> hash_shift]
            is_other = (first >= 0) & (keys[max(first, 0)] != neighbour)
            after[corner] = _COLLISION if is_other else first
        for corner in range(m):
            if after[corner] == _COLLISION:
                neighbour = keys[corner] + units[j] - step
                after[corner] = slots[_find(slots, hash_shift, keys, neighbour)]
        for corner in range(m):
            has_previous[after[corner]] = True  # Without a neighbour, -1: the last entry.
        for corner in range(m):
            if after[corner] >= 0 and not has_previous[corner]:
                current = np.int32(corner)
                while current >= 0:
                    chains[end] = current
                    end += 1
                    current = after[current]
                chains[end] = m
                end += 1
        starts[j + 1] = end
    return chains[:end], starts
