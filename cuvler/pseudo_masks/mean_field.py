"""Compiled mean-field inference in a fully connected CRF with two labels.

Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials"
(NIPS 2011). Messages are filtered on a permutohedral lattice: splat, blur along each direction,
slice.
"""

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cuvler.pseudo_masks.permutohedral import Floats, Lattice, build_lattice

_TINY = np.float32(1e-20)
# Corners of a simplex of the spatial (2-d) and of the bilateral (5-d) lattice.
_SPATIAL_CORNERS, _BILATERAL_CORNERS = 3, 6
# The spatial lattice depends on the image's shape alone: that of all images up to this side is cut
# from a single one, which takes 30 MB.
_GRID_SIDE = 1024

_compiled = njit(cache=True, error_model="numpy")


def _raise_mmap_threshold() -> None:
    """Make glibc keep freed memory for the next mask.

    Each mask allocates and frees some megabytes. By default glibc returns them to the system, and
    fresh pages cost a sixth of the run time. Freeing one large block raises its thresholds: it
    then keeps up to twice that size.
    """
    np.empty(2**24, np.uint8)


_raise_mmap_threshold()


def infer(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    spatial_sxy: float,
    spatial_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
    iterations: int,
) -> NDArray[np.bool_]:
    """Refine masks of one image; same result as pydensecrf, with one channel instead of two.

    With two labels and a Potts model, only the difference x of their log probabilities matters,
    and the messages are linear in q1 - q0 = tanh(x / 2).

    Args:
        image: (h, w, 3), with sides of at most 10000 pixels.
        masks: (k, h, w); the unary energies are the negative log softmax of (1 - mask, mask).
        spatial_sxy: standard deviation of the spatial kernel in pixels.
        spatial_compat: weight of the spatial kernel.
        bilateral_sxy: standard deviation of the bilateral kernel in pixels.
        bilateral_srgb: standard deviation of the bilateral kernel in colour levels.
        bilateral_compat: weight of the bilateral kernel.
        iterations: number of mean-field updates.

    Returns:
        (k, h, w), True where label 1 is the more probable one.
    """
    spatial = _spatial_lattice(image.shape[:2], spatial_sxy)
    bilateral = build_lattice(
        (*_positions(image.shape[:2], bilateral_sxy), *_colours(image, bilateral_srgb))
    )
    _normalise(spatial, bilateral)
    compats = np.float32(spatial_compat), np.float32(bilateral_compat)
    refined = np.empty_like(masks)
    for index, mask in enumerate(masks):
        prior = np.where(mask, np.float32(1), np.float32(-1)).ravel()
        logits = _iterate(spatial, bilateral, prior, compats, iterations)
        refined[index] = (logits > 0).reshape(mask.shape)
    return refined


def _spatial_lattice(shape: tuple[int, int], sxy: float) -> Lattice:
    if max(shape) > _GRID_SIDE:
        return build_lattice(_positions(shape, sxy))
    return _crop(_grid_lattice(sxy), *shape)


@lru_cache(maxsize=1)
def _grid_lattice(sxy: float) -> Lattice:
    return build_lattice(_positions((_GRID_SIDE, _GRID_SIDE), sxy))


@_compiled
def _crop(grid: Lattice, height: int, width: int) -> Lattice:
    """Return the lattice of the first rows and columns of the grid.

    It equals the lattice built of these points, and takes a third of the time.
    """
    corners = np.empty((height * width, _SPATIAL_CORNERS), np.uint32)
    weights = np.empty((height * width, _SPATIAL_CORNERS), np.float32)
    number = np.zeros(grid.before.shape[1], np.uint32)  # of a corner of the grid; 0: outside
    inside = np.zeros(grid.before.shape[1], np.uint32)
    end = np.uint64(1)
    for row in range(height):
        source = slice(row * _GRID_SIDE, row * _GRID_SIDE + width)
        target = slice(row * width, (row + 1) * width)
        of_grid, of_row = grid.corners[source], corners[target]
        weights[target] = grid.weights[source]
        for p in range(width):
            for r in range(_SPATIAL_CORNERS):
                corner = of_grid[p, r]
                if number[corner] == 0:
                    number[corner], inside[end] = end, corner
                    end += np.uint64(1)
                of_row[p, r] = number[corner]
    before = np.empty((_SPATIAL_CORNERS, end), np.uint32)
    after = np.empty((_SPATIAL_CORNERS, end), np.uint32)
    for j in range(_SPATIAL_CORNERS):
        for corner in range(end):
            before[j, corner] = number[grid.before[j, inside[corner]]]
            after[j, corner] = number[grid.after[j, inside[corner]]]
    return Lattice(corners, weights, before, after)


@_compiled
def _normalise(spatial: Lattice, bilateral: Lattice) -> None:
    """Scale each point's weights by 1 / sqrt of the filter's response to ones, in place.

    Applied in splat and slice, this normalises the kernels symmetrically.
    """
    n = len(spatial.corners)
    spatial_sums, bilateral_sums = _new_sums(spatial), _new_sums(bilateral)
    responses = np.empty((2, n), np.float32)
    _splat(spatial, spatial_sums[0], bilateral, bilateral_sums[0], np.ones(n, np.float32))
    spatial_blurred = _blur(spatial, spatial_sums)
    bilateral_blurred = _blur(bilateral, bilateral_sums)
    _slice(spatial, spatial_blurred, bilateral, bilateral_blurred, responses)
    for p in range(n):
        spatial_norm = np.float32(1) / np.sqrt(responses[0, p] + _TINY)
        bilateral_norm = np.float32(1) / np.sqrt(responses[1, p] + _TINY)
        for r in range(_SPATIAL_CORNERS):
            spatial.weights[p, r] *= spatial_norm
        for r in range(_BILATERAL_CORNERS):
            bilateral.weights[p, r] *= bilateral_norm


@_compiled
def _iterate(
    spatial: Lattice,
    bilateral: Lattice,
    prior: Floats,
    compats: tuple[np.float32, np.float32],
    iterations: int,
) -> Floats:
    """Run the mean-field updates from ``prior`` and return the logits."""
    n = len(prior)
    spatial_sums, bilateral_sums = _new_sums(spatial), _new_sums(bilateral)
    messages = np.empty((2, n), np.float32)
    expected, changes = np.zeros(n, np.float32), np.empty(n, np.float32)
    logits = prior.copy()
    for _ in range(iterations):
        _expect(logits, expected, changes, messages[0])
        _splat(spatial, spatial_sums[0], bilateral, bilateral_sums[0], changes)
        spatial_blurred = _blur(spatial, spatial_sums)
        bilateral_blurred = _blur(bilateral, bilateral_sums)
        _slice(spatial, spatial_blurred, bilateral, bilateral_blurred, messages)
        for p in range(n):
            logits[p] = prior[p] + compats[0] * messages[0, p] + compats[1] * messages[1, p]
    return logits


@_compiled
def _new_sums(lattice: Lattice) -> Floats:
    """Return zeros (3, m + 1): the sums of the corners, and two buffers to blur them in."""
    return np.zeros((3, lattice.before.shape[1]), np.float32)


@_compiled
def _splat(
    spatial: Lattice,
    spatial_sums: Floats,
    bilateral: Lattice,
    bilateral_sums: Floats,
    values: Floats,
) -> None:
    """Add the points' weighted values (n,) to the sums of their corners in both lattices."""
    # Constant loop bounds let the compiler unroll. Both lattices share one loop, because
    # neighbouring points add to the same corners of ``spatial``, and wait for each other.
    for p in range(len(values)):
        value = values[p]
        if value == 0:
            continue
        for r in range(_BILATERAL_CORNERS):
            bilateral_sums[bilateral.corners[p, r]] += bilateral.weights[p, r] * value
        for r in range(_SPATIAL_CORNERS):
            spatial_sums[spatial.corners[p, r]] += spatial.weights[p, r] * value


@_compiled
def _blur(lattice: Lattice, sums: Floats) -> Floats:
    """Blur sums[0] (m + 1,) along each direction with (1/2, 1, 1/2), in the other two rows."""
    source: Floats = sums[0]
    for j in range(len(lattice.before)):
        target, before, after = sums[1 + j % 2], lattice.before[j], lattice.after[j]
        for corner in range(len(target)):
            neighbours = source[before[corner]] + source[after[corner]]
            target[corner] = source[corner] + np.float32(0.5) * neighbours
        source = target
    return source


@_compiled
def _slice(
    spatial: Lattice,
    spatial_sums: Floats,
    bilateral: Lattice,
    bilateral_sums: Floats,
    values: Floats,
) -> None:
    """Write the points' values in both lattices, the weighted sums of their corners, (2, n)."""
    spatial_values, bilateral_values = values
    for p in range(len(spatial_values)):
        spatial_value = bilateral_value = np.float32(0)
        for r in range(_BILATERAL_CORNERS):
            bilateral_value += bilateral.weights[p, r] * bilateral_sums[bilateral.corners[p, r]]
        for r in range(_SPATIAL_CORNERS):
            spatial_value += spatial.weights[p, r] * spatial_sums[spatial.corners[p, r]]
        spatial_values[p], bilateral_values[p] = spatial_value, bilateral_value


@_compiled
def _expect(logits: Floats, expected: Floats, changes: Floats, powers: Floats) -> None:
    """Update ``expected`` to tanh(logits / 2), the expected label in [-1, 1].

    (1 - e) / (1 + e) with e = exp(-logits) = 2^k exp(f), by a Taylor polynomial for |f| < 0.35.
    Elementary float32 operations vectorise, unlike a library's tanh, and round the same way on
    every machine.

    Args:
        logits: (n,).
        expected: (n,), of the previous update.
        changes: (n,), overwritten with the differences: 0 for most points from the third update
            on, because the tanh of large logits is 1 in float32.
        powers: (n,), overwritten.
    """
    bits = powers.view(np.int32)
    for p in range(len(logits)):
        x = min(max(-logits[p], np.float32(-80)), np.float32(80))
        k = np.rint(x * np.float32(1.44269504))
        f = (x - k * np.float32(0.693359375)) + k * np.float32(2.12194440e-4)  # ln 2 in two parts
        e = np.float32(1 / 720) * f + np.float32(1 / 120)
        e = e * f + np.float32(1 / 24)
        e = e * f + np.float32(1 / 6)
        e = e * f + np.float32(1 / 2)
        e = e * f + np.float32(1)
        changes[p] = e * f + np.float32(1)
        bits[p] = (np.int32(k) + np.int32(127)) << np.int32(23)
    for p in range(len(logits)):
        e = changes[p] * powers[p]
        value = (np.float32(1) - e) / (np.float32(1) + e)
        changes[p] = value - expected[p]
        expected[p] = value


def _positions(shape: tuple[int, int], deviation: float) -> tuple[Floats, Floats]:
    """Return each pixel's x and y, (n,), in standard deviations."""
    y, x = (np.arange(side, dtype=np.float32) / np.float32(deviation) for side in shape)
    return np.tile(x, len(y)), np.repeat(y, len(x))


def _colours(image: NDArray[np.uint8], deviation: float) -> tuple[Floats, Floats, Floats]:
    """Return each pixel's red, green and blue, (n,), in standard deviations."""
    red, green, blue = (
        np.divide(image[..., channel].ravel(), np.float32(deviation), dtype=np.float32)
        for channel in range(3)
    )
    return red, green, blue
