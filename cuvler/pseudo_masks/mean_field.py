"""Mean-field inference of a fully connected CRF with two labels, compiled.

Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials"
(NIPS 2011). A message is filtered by splatting it onto a permutohedral lattice's corners, blurring
them along each direction, and slicing it back.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cuvler.pseudo_masks.permutohedral import Corners, Floats, Lattice, build_lattice

_BLOCK = 1024  # Points that are worked on together: their scratch stays in the cache.
_TINY = np.float32(1e-20)

_compiled = njit(cache=True, error_model="numpy")
_inlined = njit(cache=True, error_model="numpy", inline="always")


def infer(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    spatial_sxy: float,
    spatial_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
    iterations: int,
) -> NDArray[np.bool_]:
    """Refine a mask; what pydensecrf computes, with one channel instead of two.

    With labels 0 and 1 and a Potts model only the difference x of their log probabilities
    counts, and the messages are linear in q1 - q0 = tanh(x / 2).

    Args:
        image: (h, w, 3), of at most 10000 pixels a side.
        mask: (h, w); the unary energies are the negative log softmax of (1 - mask, mask).
        spatial_sxy: standard deviation of the spatial kernel, pixels.
        spatial_compat: its weight.
        bilateral_sxy: the bilateral kernel's standard deviation, pixels.
        bilateral_srgb: and its standard deviation in the colours.
        bilateral_compat: its weight.
        iterations: how many updates.

    Returns:
        (h, w), where label 1 is the more probable one.
    """
    near = build_lattice(_features(image, spatial_sxy, 0.0))
    alike = build_lattice(_features(image, bilateral_sxy, bilateral_srgb))
    compats = np.float32(spatial_compat), np.float32(bilateral_compat)
    prior = np.where(mask, np.float32(1), np.float32(-1)).ravel()
    logits = _iterate(near, alike, prior, compats, iterations)
    return (logits > 0).reshape(mask.shape)


@_compiled
def _iterate(
    near: Lattice,
    alike: Lattice,
    prior: Floats,
    compats: tuple[np.float32, np.float32],
    iterations: int,
) -> Floats:
    near_sums = np.zeros(near.size + 1, np.float32)
    alike_sums = np.zeros(alike.size + 1, np.float32)
    norms = np.ones((2, len(prior)), np.float32)
    _splat(near.corners, near.weights, norms[0], 0, near_sums, 3)
    _splat(alike.corners, alike.weights, norms[1], 0, alike_sums, 6)
    _blur(near, near_sums)
    _blur(alike, alike_sums)
    _slice(near.corners, near.weights, near_sums, 0, norms[0], 3)
    _slice(alike.corners, alike.weights, alike_sums, 0, norms[1], 6)
    # 1 / sqrt of the filter's answer to ones, before and after it, makes it symmetric.
    norms = np.float32(1) / np.sqrt(norms + _TINY)
    logits = prior.copy()
    for _ in range(iterations):
        _send(near, near_sums, alike, alike_sums, norms, logits)
        _blur(near, near_sums)
        _blur(alike, alike_sums)
        _receive(near, near_sums, alike, alike_sums, norms, logits, prior, compats)
    return logits


@_compiled
def _send(
    near: Lattice,
    near_sums: Floats,
    alike: Lattice,
    alike_sums: Floats,
    norms: Floats,
    logits: Floats,
) -> None:
    """Splat the expected labels, normalised, onto both lattices."""
    near_sums[:] = 0
    alike_sums[:] = 0
    near_values, alike_values = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    scratch = np.empty((2, _BLOCK), np.float32)
    for start in range(0, len(logits), _BLOCK):
        size = min(_BLOCK, len(logits) - start)
        _expect(logits[start : start + size], scratch[:, :size])
        for p in range(size):
            near_values[p] = scratch[0, p] * norms[0, start + p]
            alike_values[p] = scratch[0, p] * norms[1, start + p]
        _splat(near.corners, near.weights, near_values[:size], start, near_sums, 3)
        _splat(alike.corners, alike.weights, alike_values[:size], start, alike_sums, 6)


@_compiled
def _receive(
    near: Lattice,
    near_sums: Floats,
    alike: Lattice,
    alike_sums: Floats,
    norms: Floats,
    logits: Floats,
    prior: Floats,
    compats: tuple[np.float32, np.float32],
) -> None:
    """Slice the messages from both lattices and update the logits."""
    near_compat, alike_compat = compats
    near_values, alike_values = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(0, len(logits), _BLOCK):
        size = min(_BLOCK, len(logits) - start)
        _slice(near.corners, near.weights, near_sums, start, near_values[:size], 3)
        _slice(alike.corners, alike.weights, alike_sums, start, alike_values[:size], 6)
        for p in range(size):
            i = start + p
            logits[i] = (
                prior[i]
                + near_compat * (norms[0, i] * near_values[p])
                + alike_compat * (norms[1, i] * alike_values[p])
            )


@_compiled
def _expect(logits: Floats, scratch: Floats) -> None:
    """Write tanh(logits / 2), the expected label in [-1, 1], to the first row of ``scratch``.

    (1 - e) / (1 + e) with e = exp(-logits) = 2^k exp(f), by a Taylor polynomial on |f| < 0.35.
    Plain float32 operations vectorise, where calls of a library's tanh do not, and are rounded
    alike on every machine.
    """
    values, powers = scratch[0], scratch[1]
    bits = powers.view(np.int32)
    for p in range(len(logits)):
        x = min(max(-logits[p], np.float32(-80)), np.float32(80))
        k = np.rint(x * np.float32(1.44269504))
        f = (x - k * np.float32(0.693359375)) + k * np.float32(2.12194440e-4)  # ln 2 in 2 parts
        e = np.float32(1 / 720) * f + np.float32(1 / 120)
        e = e * f + np.float32(1 / 24)
        e = e * f + np.float32(1 / 6)
        e = e * f + np.float32(1 / 2)
        e = e * f + np.float32(1)
        values[p] = e * f + np.float32(1)
        bits[p] = (np.int32(k) + np.int32(127)) << np.int32(23)
    for p in range(len(logits)):
        e = values[p] * powers[p]
        values[p] = (np.float32(1) - e) / (np.float32(1) + e)


@_compiled
def _features(image: NDArray[np.uint8], sxy: float, srgb: float) -> Floats:
    """(2, n) positions or, with ``srgb``, (5, n) positions and colours, in deviations."""
    height, width = image.shape[:2]
    features = np.empty((5 if srgb else 2, height * width), np.float32)
    for y in range(height):
        row = features[:, y * width : (y + 1) * width]
        for x in range(width):
            row[0, x] = np.float32(x) / np.float32(sxy)
            row[1, x] = np.float32(y) / np.float32(sxy)
        for i in range(2, len(features)):
            for x in range(width):
                row[i, x] = np.float32(image[y, x, i - 2]) / np.float32(srgb)
    return features


@_inlined
def _splat(
    corners: Corners, weights: Floats, values: Floats, start: int, sums: Floats, count: int
) -> None:
    """Add the values of the points from ``start`` on to the sums of their corners.

    ``count`` is d + 1, written as a number by the caller so that the compiler unrolls the loop.
    """
    for p in range(len(values)):
        value = values[p]
        for r in range(count):
            sums[corners[start + p, r]] += weights[start + p, r] * value


@_compiled
def _blur(lattice: Lattice, sums: Floats) -> None:
    """Blur the corners' (m + 1,) sums in place, along each direction with 1/2 1 1/2."""
    for j in range(len(lattice.starts) - 1):
        before = current = np.float32(0)
        corner = np.uint32(lattice.size)
        for i in range(lattice.starts[j], lattice.starts[j + 1]):
            following = lattice.chains[i]
            after = sums[following]
            sums[corner] = current + np.float32(0.5) * (before + after)
            sums[lattice.size] = 0
            before, current, corner = current, after, following


@_inlined
def _slice(
    corners: Corners, weights: Floats, sums: Floats, start: int, values: Floats, count: int
) -> None:
    """Read the values of the points from ``start`` on; ``count`` as in ``_splat``."""
    for p in range(len(values)):
        value = np.float32(0)
        for r in range(count):
            value += weights[start + p, r] * sums[corners[start + p, r]]
        values[p] = value
