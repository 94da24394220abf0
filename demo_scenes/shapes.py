"""The demo's solids, as signed distance functions traced by :mod:`demo_scenes.render`.

A solid stands on y = 0 in its own frame (y up, about two units tall). Its function returns, for
each point, a lower bound of the distance to the solid: negative inside, positive outside. Boxes,
ellipsoids, tori and smooth unions follow Quilez, "Distance functions" (2008).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demo_scenes.noise import Array

Distance = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Shape:
    """A solid in its own coordinate frame.

    Attributes:
        distance: signed distance of points x, y, z; arrays of one shape, float32.
        middle: height of the bounding sphere's centre above the base.
        radius: radius of the bounding sphere.
        foot: radius of the footprint, a disc on the ground.
        fill: approximate fraction of the bounding sphere's disc that the silhouette fills.
        axis: height of the axis when the solid lies on its side; None if it always stands.
    """

    distance: Distance
    middle: float
    radius: float
    foot: float
    fill: float
    axis: float | None = None


def _length(*components: Array) -> Array:
    total = components[0] * components[0]
    for component in components[1:]:
        total = total + component * component
    return np.sqrt(total)


def _smooth_union(a: Array, b: Array, width: float) -> Array:
    blend = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - blend * blend * (width / 4)


def _disc(radius: Array, y: Array, half_width: float, half_height: float, corner: float) -> Array:
    """Return the distance to an upright cylinder with rounded edges around the origin."""
    outward = radius - (half_width - corner)
    upward = np.abs(y) - (half_height - corner)
    outside = _length(np.maximum(outward, 0), np.maximum(upward, 0))
    nearest: Array = outside + np.minimum(np.maximum(outward, upward), 0) - corner
    return nearest


def _ellipsoid(x: Array, y: Array, z: Array, a: float, b: float, c: float) -> Array:
    scaled = _length(x / a, y / b, z / c)
    slope = _length(x / (a * a), y / (b * b), z / (c * c))
    return scaled * (scaled - 1) / np.maximum(slope, 1e-6)


def ball(rng: np.random.Generator) -> Shape:
    """A sphere."""
    return Shape(lambda x, y, z: _length(x, y - 1, z) - 1, 1.0, 1.02, 0.8, 0.95)


def box(rng: np.random.Generator) -> Shape:
    """A box with rounded edges: a cube, a carton, a book."""
    half = np.array(
        [(0.8, 0.8, 0.8), (0.65, 1.0, 0.4), (1.0, 0.5, 0.7), (1.0, 0.22, 0.75)][rng.integers(4)]
    )
    a, b, c = (float(side) for side in half * rng.uniform(0.85, 1.12, 3))
    corner = float(rng.uniform(0.03, 0.12))

    def distance(x: Array, y: Array, z: Array) -> Array:
        out_x = np.abs(x) - (a - corner)
        out_y = np.abs(y - b) - (b - corner)
        out_z = np.abs(z) - (c - corner)
        outside = _length(np.maximum(out_x, 0), np.maximum(out_y, 0), np.maximum(out_z, 0))
        inside = np.minimum(np.maximum(out_x, np.maximum(out_y, out_z)), 0)
        nearest: Array = outside + inside - corner
        return nearest

    radius = float(np.sqrt(a * a + b * b + c * c))
    return Shape(distance, b, radius, float(np.hypot(a, c)), 0.6)


def can(rng: np.random.Generator) -> Shape:
    """A tin with a rim at both ends."""
    width, half = float(rng.uniform(0.55, 0.85)), float(rng.uniform(0.55, 1.0))

    def distance(x: Array, y: Array, z: Array) -> Array:
        radius, height = _length(x, z), np.abs(y - half)
        body = _disc(radius, y - half, width - 0.03, half - 0.05, 0.03)
        rim = _length(radius - (width - 0.05), height - (half - 0.05)) - 0.05
        nearest: Array = np.minimum(body, rim)
        return nearest

    return Shape(distance, half, float(np.hypot(width, half)), width, 0.75, axis=width)


def mug(rng: np.random.Generator) -> Shape:
    """A hollow mug with a handle."""
    width, half = float(rng.uniform(0.62, 0.8)), float(rng.uniform(0.65, 0.9))
    taper = float(rng.uniform(-0.12, 0.12))
    handle, stretch = half * 0.52, 0.85

    def distance(x: Array, y: Array, z: Array) -> Array:
        y = y - half
        radius = _length(x, z) - taper * y
        outer = _disc(radius, y, width, half, 0.06)
        inner = _disc(radius, y - 0.2, width - 0.1, half, 0.06)
        along = _length(x - width, y * stretch) - handle
        grip = np.maximum(_length(along, z * 0.9) - 0.1, width - 0.06 - radius)
        nearest: Array = np.minimum(np.maximum(outer, -inner), grip) * 0.9
        return nearest

    reach = width + handle
    return Shape(distance, half, float(np.hypot(reach, half * 0.8)), reach * 0.9, 0.55)


def bottle(rng: np.random.Generator) -> Shape:
    """A bottle with a shoulder, a neck and a lip."""
    width, half = float(rng.uniform(0.4, 0.55)), float(rng.uniform(0.6, 0.75))
    neck, tall = width * float(rng.uniform(0.32, 0.45)), float(rng.uniform(0.3, 0.5))
    shoulder = float(rng.uniform(0.25, 0.5))
    top = 2 * half + 2 * tall

    def distance(x: Array, y: Array, z: Array) -> Array:
        radius = _length(x, z)
        body = _disc(radius, y - half, width, half, 0.1)
        stem = _disc(radius, y - (top - tall), neck, tall, 0.03)
        lip = _disc(radius, y - (top - 0.1), neck + 0.06, 0.09, 0.04)
        return np.minimum(_smooth_union(body, stem, shoulder), lip)

    return Shape(distance, top / 2, float(np.hypot(top / 2, width)), width, 0.42, axis=width)


def mushroom(rng: np.random.Generator) -> Shape:
    """A toadstool: a cap over a stem that widens to the ground."""
    height, width = float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.8, 1.05))
    dome = float(rng.uniform(0.5, 0.75))

    def distance(x: Array, y: Array, z: Array) -> Array:
        radius = _length(x, z)
        bulge = 0.26 + 0.12 * np.exp(-3 * np.maximum(y, 0))
        stem = np.maximum(radius - bulge, np.abs(y - height / 2) - height / 2)
        cap = np.maximum(_ellipsoid(x, y - height, z, width, dome, width), height - 0.05 - y)
        return _smooth_union(stem, cap, 0.12) * 0.85

    top = height + dome
    return Shape(distance, top / 2, float(np.hypot(top / 2, width * 0.8)), width, 0.6)


def pebble(rng: np.random.Generator) -> Shape:
    """A flattened stone with a slightly uneven surface."""
    a, c = float(rng.uniform(0.85, 1.15)), float(rng.uniform(0.65, 0.95))
    b = float(rng.uniform(0.45, 0.75))
    # Cut off at the ground, so that it rests on a face and not on a point.
    sunk = 0.75 * b
    phase, pitch = rng.uniform(0, 6.28, 3), rng.uniform(1.6, 3.0, 3)

    def distance(x: Array, y: Array, z: Array) -> Array:
        height, y = y, y - sunk
        waves = (
            np.sin(x * np.float32(pitch[0]) + np.float32(phase[0]))
            * np.sin(z * np.float32(pitch[1]) + np.float32(phase[1]))
            + np.sin(y * np.float32(pitch[2]) + x + np.float32(phase[2])) * 0.6
        )
        stone = (_ellipsoid(x, y, z, a, b, c) + 0.07 * waves) * 0.75
        nearest: Array = np.maximum(stone, -height)
        return nearest

    return Shape(distance, sunk, a + 0.12, a, 0.6)


def apple(rng: np.random.Generator) -> Shape:
    """An apple with its dimples and stalk."""
    tall = float(rng.uniform(0.92, 1.08))

    def distance(x: Array, y: Array, z: Array) -> Array:
        y = (y - 0.72 * tall) / tall
        radius = _length(x, z)
        narrow = 1 - 0.12 * np.clip(-y, 0, 1)
        flesh = _length(radius / narrow - 0.32, y) - 0.72
        stalk = np.maximum(_length(x - 0.1 * y, z) - 0.05, np.abs(y - 0.6) - 0.35)
        nearest: Array = np.minimum(flesh, stalk) * 0.85
        return nearest

    return Shape(distance, 0.78, 1.08, 0.85, 0.85)


def pear(rng: np.random.Generator) -> Shape:
    """A pear."""
    lean = float(rng.uniform(-0.12, 0.12))

    def distance(x: Array, y: Array, z: Array) -> Array:
        bent = x - lean * y
        belly = _length(bent, y - 0.68, z) - 0.7
        head = _length(bent, y - 1.5, z) - 0.34
        stalk = np.maximum(_length(bent - 0.1 * (y - 1.8), z) - 0.045, np.abs(y - 1.95) - 0.2)
        nearest: Array = np.minimum(_smooth_union(belly, head, 0.6), stalk) * 0.9
        return nearest

    return Shape(distance, 1.02, 1.16, 0.7, 0.55)


def lemon(rng: np.random.Generator) -> Shape:
    """A lemon on its side, with a nub at the tip."""
    waist = float(rng.uniform(0.62, 0.72))

    def distance(x: Array, y: Array, z: Array) -> Array:
        y = y - waist
        flesh = _ellipsoid(x, y, z, 0.95, waist, waist)
        nub = _length(np.abs(x) - 0.95, y, z) - 0.12
        return _smooth_union(flesh, nub, 0.3) * 0.85

    return Shape(distance, waist, 1.1, 0.9, 0.6)


def banana(rng: np.random.Generator) -> Shape:
    """A banana: an arc of a ring, tapered to both ends."""
    opening = float(rng.uniform(0.85, 1.15))
    sine, cosine = float(np.sin(opening)), float(np.cos(opening))
    bend = 1.0

    def distance(x: Array, y: Array, z: Array) -> Array:
        # The ring lies flat with its centre at z = bend, so that the arc's apex is the origin.
        side, inward, y = np.abs(x), bend * 0.8 - z, y - 0.26
        beyond = cosine * side > sine * inward
        along = np.where(beyond, side * sine + inward * cosine, _length(side, inward))
        square = side * side + inward * inward + y * y + bend * bend - 2 * bend * along
        angle = np.arctan2(side, inward) / opening
        thick = 0.29 - 0.2 * np.clip(angle, 0, 1) ** 4
        nearest: Array = (np.sqrt(np.maximum(square, 1e-9)) - thick) * 0.75
        return nearest

    return Shape(distance, 0.26, 1.18, 0.9, 0.4)


def pumpkin(rng: np.random.Generator) -> Shape:
    """A ribbed pumpkin with its stem."""
    ribs, depth = int(rng.integers(8, 13)), float(rng.uniform(0.04, 0.08))
    tall = float(rng.uniform(0.75, 1.0))

    def distance(x: Array, y: Array, z: Array) -> Array:
        y = (y - 0.68 * tall) / tall
        radius = _length(x, z)
        swell = 1 - depth + depth * 2 * np.abs(np.cos(np.arctan2(z, x) * (ribs / 2)))
        flesh = _length(radius / swell - 0.4, y) - 0.68
        stem = np.maximum(_length(x - 0.25 * y, z) - 0.1, np.abs(y - 0.6) - 0.38)
        nearest: Array = np.minimum(flesh, stem) * 0.65
        return nearest

    return Shape(distance, 0.7 * tall, 1.22, 1.0, 0.75)
