"""Seamless random patterns for the demo's textures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

# Values are float32; the type is wider because numpy's stubs do not infer it.
Array = NDArray[np.floating[Any]]


def fractal(
    rng: np.random.Generator,
    size: int,
    *,
    cells: int | tuple[int, int],
    octaves: int = 4,
    gain: float = 0.5,
) -> Array:
    """Sum octaves of smooth noise into a (size, size) texture with values from 0 to 1.

    Args:
        rng: draws the values.
        size: side in pixels.
        cells: number of random values along a side (or rows, columns) in the first octave;
            doubles in each further octave.
        octaves: number of octaves; those finer than a pixel are skipped.
        gain: weight of each octave relative to the previous one.
    """
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        if max(rows, columns) > size:
            break
        values = rng.random((rows, columns), dtype=np.float32)
        # Padding by two wrapped values on each side makes the cubic interpolation periodic.
        padded = Image.fromarray(np.pad(values, 2, mode="wrap"))
        frame = (2, 2, 2 + columns, 2 + rows)
        layer = padded.resize((size, size), Image.Resampling.BICUBIC, box=frame)
        total += np.float32(gain**octave) * np.asarray(layer)
        rows, columns = 2 * rows, 2 * columns
    return normalise(total)


def normalise(values: Array) -> Array:
    """Rescale values linearly to [0, 1]."""
    low, high = values.min(), values.max()
    stretched: Array = (values - low) / max(high - low, np.float32(1e-6))
    return stretched


class SolidNoise:
    """Smooth 3D noise, for solid textures."""

    def __init__(self, rng: np.random.Generator, side: int = 24) -> None:
        self._lattice = rng.random((side, side, side), dtype=np.float32)

    def __call__(self, x: Array, y: Array, z: Array, *, octaves: int = 1) -> Array:
        """Return values in [0, 1] at points (n,); one random value per unit in the first octave."""
        total = np.zeros(x.shape, np.float32)
        weight, scale = 0.5, 1.0
        for _ in range(octaves):
            total += np.float32(weight) * self._sample(x * scale, y * scale, z * scale)
            weight, scale = weight / 2, scale * 2.03
        return total / np.float32(1 - 0.5**octaves)

    def _sample(self, *point: Array) -> Array:
        coordinates = []
        for component in point:
            floor = np.floor(component)
            part = component - floor
            # Smoothed weights avoid the visible creases of linear interpolation.
            coordinates.append(floor + part * part * (3 - 2 * part))
        values: Array = ndimage.map_coordinates(
            self._lattice, coordinates, order=1, mode="grid-wrap", output=np.float32
        )
        return values
