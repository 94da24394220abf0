"""The permutohedral lattice: points in d dimensions placed among its corners, compiled.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(Eurographics 2010). Corners and weights are those of pydensecrf, bit for bit in float32. The time
is saved around them: keys packed into one integer, points located a block at a time in loops that
vectorise, neighbours looked up one way and kept as chains.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Keys = NDArray[np.int64]
Corners = NDArray[np.uint32]
Table = tuple[Ints, np.uint64]  # the corner in each slot (-1: free), and how far to shift a hash
Packing = tuple[Keys, np.int64, np.int64]
# Points' offsets from the origin of their cell, the cell, and the offsets' ranks, each
# (d + 1, block): cell and ranks name a simplex.
Simplices = tuple[Floats, Ints, Ints]

_BLOCK = 1024  # Points that are worked on together: their scratch stays in the cache.
_KEY_BITS = 60
_COLLISION = np.int32(-2)
_HASH = np.int64(-7046029254386353131)  # 2^64 / golden ratio: Fibonacci hashing

# Numba's cache notices a change in the file of the function that is called, not in the files of
# those that it calls: compiled functions of one module must not call those of another.
_compiled = njit(cache=True, error_model="numpy")
_inlined = njit(cache=True, error_model="numpy", inline="always")


class Lattice(NamedTuple):
    """n points in d dimensions, and the m lattice corners of their simplices.

    Attributes:
        corners: (n, d + 1) uint32, which corners enclose each point.
        weights: (n, d + 1) float32, the point's barycentric coordinates among them.
        chains: uint32, runs of corners that are neighbours along a direction, each run ended by
            m, a corner that stands for none.
        starts: (d + 2,) int64, where each direction's runs start in ``chains``.
        size: m.
    """

    corners: Corners
    weights: Floats
    chains: Corners
    starts: Keys
    size: int


@_compiled
def build_lattice(features: tuple[Floats, ...]) -> Lattice:
    """Place points on the lattice.

    Args:
        features: d arrays of shape (n,), float32, in standard deviations of the Gaussian; a
            tuple, so that the compiler knows d and unrolls the loops over it. 60 / d bits must
            hold a lattice coordinate: with d = 5, features up to about 200.
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
def _locate(features: tuple[Floats, ...], start: int, simplices: Simplices, shift: Ints) -> None:
    """Find the simplices of the block from ``start`` on."""
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
            # A cell that is off the lattice's plane moves where the rounding erred most.
            moved = rank[p] + shift[p]
            wrap = (np.int32(moved < 0) - np.int32(moved > d)) * np.int32(d + 1)
            rank[p] = moved + wrap
            cell[p] += wrap
            offset[p] = (offset[p] - np.float32(wrap)) * down


@_compiled
def _enter(
    features: tuple[Floats, ...],
    simplices: Simplices,
    packing: Packing,
    table: Table,
    keys: Keys,
    count: int,
    corners: Corners,
    weights: Floats,
) -> int:
    """Write a block's corners and weights; number the corners that are new from ``count``."""
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
            # Points side by side often share corners: look up only what changed.
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
def _packing(d: int) -> Packing:
    """How d coordinates share an integer: d + 1 in each, 1 in all, and the origin."""
    bits = _KEY_BITS // d
    units = np.zeros(d + 1, np.int64)
    step = np.int64(0)
    for i in range(d):
        units[i] = np.int64(d + 1) << np.int64(bits * i)
        step += np.int64(1) << np.int64(bits * i)
    return units, step, step << np.int64(bits - 1)


@_compiled
def _new_table(room: int) -> Table:
    bits = 10
    while 1 << bits < room:
        bits += 1
    return np.full(1 << bits, -1, np.int32), np.uint64(64 - bits)


@_inlined
def _find(slots: Ints, hash_shift: np.uint64, keys: Keys, key: np.int64) -> np.uint64:
    """The slot of the corner with this key, or the free one where it belongs (linear probing)."""
    slot = np.uint64(key * _HASH) >> hash_shift
    last = np.uint64(len(slots) - 1)
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & last
    return slot


@_compiled
def _chains(table: Table, keys: Keys, packing: Packing) -> tuple[Corners, Keys]:
    """Follow the neighbours along each direction, from every corner that has none before it."""
    units, step, _ = packing
    slots, hash_shift = table
    m, directions = len(keys), len(units)
    after = np.empty(m, np.int32)
    has_before = np.empty(m + 1, np.bool_)
    # A chain has two corners at least: with its end it takes 3/2 of its corners' room.
    chains = np.empty(directions * (m + m // 2 + 1), np.uint32)
    starts = np.zeros(directions + 1, np.int64)
    end = 0
    for j in range(directions):
        has_before[:] = False
        for corner in range(m):
            neighbour = keys[corner] + units[j] - step
            # Whether there is a neighbour is a coin toss, so there is no branch on it: one that
            # is mispredicted half of the time takes longer than the look-up.
            first = slots[np.uint64(neighbour * _HASH) >> hash_shift]
            is_other = (first >= 0) & (keys[max(first, 0)] != neighbour)
            after[corner] = _COLLISION if is_other else first
        for corner in range(m):
            if after[corner] == _COLLISION:
                neighbour = keys[corner] + units[j] - step
                after[corner] = slots[_find(slots, hash_shift, keys, neighbour)]
        for corner in range(m):
            has_before[after[corner]] = True  # The last entry where there is none, -1.
        for corner in range(m):
            if after[corner] >= 0 and not has_before[corner]:
                current = np.int32(corner)
                while current >= 0:
                    chains[end] = current
                    end += 1
                    current = after[current]
                chains[end] = m
                end += 1
        starts[j + 1] = end
    return chains[:end], starts
