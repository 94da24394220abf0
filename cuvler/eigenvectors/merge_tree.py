"""Agglomerative grouping of an image's patches: which regions merge, and how similar they are.

The features are 200 times as large as the tree, so the tree is made in the extraction stage;
:mod:`cuvler.eigenvectors.grains` cuts it at any similarity.
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvler.eigenvectors.normalized_cut import SolverStatus


@dataclass(frozen=True)
class MergeTrees:
    """The merge trees of a batch of b images.

    Attributes:
        vectors: (b, 2, n) float32, the maps of :func:`merge_tree`; NaN where there is no tree.
        status: (b,) str, values of :class:`cuvler.eigenvectors.normalized_cut.SolverStatus`.
    """

    vectors: Tensor
    status: NDArray[np.str_]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """(b,): the images without a tree, because features of theirs are not finite."""
        return np.asarray(self.status == SolverStatus.FAILED)


def merge_trees(features: Tensor, grid: tuple[int, int]) -> MergeTrees:
    """Compute the merge tree of each image of a batch on the CPU.

    Args:
        features: (b, h * w, d), one row per patch, on any device.
        grid: (h, w), the patch grid.
    """
    images = features.float().cpu().numpy()
    usable = np.isfinite(images).all(axis=(1, 2))
    vectors = np.full((len(images), 2, *grid), np.nan, dtype=np.float32)
    for index in np.flatnonzero(usable):
        vectors[index] = merge_tree(images[index], grid)
    status = np.where(usable, SolverStatus.OK, SolverStatus.FAILED)
    return MergeTrees(torch.from_numpy(vectors).flatten(2), status)


def merge_tree(features: NDArray[np.floating], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Merge the two most similar neighbouring regions until one is left (HASSOD, section 3.1).

    Each patch starts as a region. The similarity of two regions is the cosine of their mean
    features; those of patches are normalised first, and the cosine with zeros is 0. Regions are
    neighbours if patches of theirs share a side. Of equally similar pairs, the one with the
    smallest indices is merged first. Computed in float32, in an order that depends on nothing else.

    A region is named by its first patch in row-major order. A merge ends one of two names, so the
    tree has one entry for each patch.

    Args:
        features: (h * w, d), one row per patch, finite.
        grid: (h, w), the patch grid.

    Returns:
        (2, h, w): the index of the patch that names the region into which a patch's region was
        merged (exact up to 2^24 patches), and the smallest similarity of all merges up to that
        one. The first patch, the name of the last region, has its own index and -1.

    Raises:
        ValueError: ``features`` and ``grid`` have different numbers of patches.
    """
    if len(features) != grid[0] * grid[1]:
        raise ValueError(f"{len(features)} patches do not fill a grid of {grid[0]} x {grid[1]}")
    unit = np.array(features, dtype=np.float32, order="C")
    norms = np.linalg.norm(unit, axis=1, keepdims=True)
    np.divide(unit, norms, out=unit, where=norms > 0)
    return np.stack(_merge_all(unit, *grid)).reshape(2, *grid)


class _Regions(NamedTuple):
    """The regions, by the index of the patch that names them.

    Neighbours are linked lists of entries in the arrays at the end. A list may have entries of
    regions that have been merged since it was written.
    """

    sums: NDArray[np.float32]  # (n, d), of features
    norms: NDArray[np.float32]
    names: NDArray[np.int64]  # union-find
    formed: NDArray[np.int64]  # the step of a region's last merge
    marks: NDArray[np.int64]  # the last step in which a region was listed
    first: NDArray[np.int64]  # entry, -1 for none
    last: NDArray[np.int64]
    regions: NDArray[np.int64]  # of each entry, -1 for none
    similarities: NDArray[np.float32]
    following: NDArray[np.int64]  # entry, -1 for none


@numba.njit(cache=True, nogil=True)
def _merge_all(
    sums: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Merge until one region is left; ``sums``, the patches' features, are overwritten.

    A pair is owned by the region that was formed last, so a merge changes only the pairs that the
    new region owns. The heap has the best pair of each owner. One that is lost, because the other
    region has been merged, is replaced when it reaches the top: it only overstates what is left.
    """
    n = len(sums)
    regions = _patches(sums, height, width)
    parents, lowest = np.arange(n).astype(np.float32), np.full(n, -1, np.float32)
    heap = [(np.float32(0), 0, 0, 0, 0)]  # for its type
    heap.pop()
    for patch in range(n):
        _list_neighbours(regions, patch, patch)
        _push_best(heap, regions, patch)
    step, so_far = 0, np.float32(1)
    while step < n - 1:
        distance, a, b, owner, when = heapq.heappop(heap)
        other = a + b - owner
        if regions.names[owner] != owner or regions.formed[owner] != when:
            continue
        if regions.names[other] != other or regions.formed[other] > when:
            _push_best(heap, regions, owner)
            continue
        step += 1
        so_far = min(so_far, -distance)
        parents[b], lowest[b] = a, so_far
        regions.names[b], regions.formed[a] = a, step
        regions.sums[a] += regions.sums[b]
        regions.norms[a] = np.sqrt(_dot(regions.sums[a], regions.sums[a]))
        regions.following[regions.last[a]] = regions.first[b]
        regions.last[a] = regions.last[b]
        _list_neighbours(regions, a, n + step)
        _push_best(heap, regions, a)
    return parents, lowest


@numba.njit(cache=True, nogil=True)
def _patches(sums: NDArray[np.float32], height: int, width: int) -> _Regions:
    """Return the regions of single patches; of two patches, the first one is the owner."""
    n = len(sums)
    regions = np.full(4 * n, -1, np.int64)
    for patch in range(n):
        y, x = divmod(patch, width)
        if y > 0:
            regions[4 * patch] = patch - width
        if x > 0:
            regions[4 * patch + 1] = patch - 1
        if x + 1 < width:
            regions[4 * patch + 2] = patch + 1
        if y + 1 < height:
            regions[4 * patch + 3] = patch + width
    following = np.arange(1, 4 * n + 1)
    following[3::4] = -1
    norms = np.empty(n, np.float32)
    for patch in range(n):
        norms[patch] = np.sqrt(_dot(sums[patch], sums[patch]))
    return _Regions(
        sums,
        norms,
        np.arange(n),
        -np.arange(n),
        np.full(n, -1, np.int64),
        np.arange(0, 4 * n, 4),
        np.arange(3, 4 * n, 4),
        regions,
        np.empty(4 * n, np.float32),
        following,
    )


@numba.njit(cache=True, nogil=True)
def _list_neighbours(regions: _Regions, region: int, step: int) -> None:
    """Compute the similarities of a new region's neighbours, and list each one once."""
    entry, kept = regions.first[region], -1
    while entry >= 0:
        other = regions.regions[entry]
        if other >= 0:
            other = _name(regions.names, other)
        if other >= 0 and other != region and regions.marks[other] != step:
            regions.marks[other] = step
            regions.regions[entry] = other
            product = _dot(regions.sums[region], regions.sums[other])
            norm = regions.norms[region] * regions.norms[other]
            regions.similarities[entry] = product / norm if norm > 0 else np.float32(0)
            if kept < 0:
                regions.first[region] = entry
            else:
                regions.following[kept] = entry
            kept = entry
        entry = regions.following[entry]
    if kept < 0:
        regions.first[region] = -1
    else:
        regions.following[kept] = -1
        regions.last[region] = kept


@numba.njit(cache=True, nogil=True)
def _push_best(
    heap: list[tuple[np.float32, int, int, int, int]], regions: _Regions, region: int
) -> None:
    """Push the most similar pair that a region owns, if it owns any."""
    formed = regions.formed[region]
    best = (np.float32(np.inf), 0, 0)
    entry = regions.first[region]
    while entry >= 0:
        other = regions.regions[entry]
        if regions.names[other] == other and regions.formed[other] < formed:
            pair = (-regions.similarities[entry], min(region, other), max(region, other))
            if pair < best:
                best = pair
        entry = regions.following[entry]
    if best[0] < np.inf:
        heapq.heappush(heap, (best[0], best[1], best[2], region, formed))


@numba.njit(cache=True, nogil=True)
def _name(names: NDArray[np.int64], region: int) -> int:
    while names[region] != region:
        names[region] = names[names[region]]
        region = names[region]
    return region


# Summed in the order that suits the processor, which is the same for (one, other) and (other, one).
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(one: NDArray[np.float32], other: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for index in range(len(one)):
        total += one[index] * other[index]
    return total
