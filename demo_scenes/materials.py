"""Materials of the demo's solids: solid textures, bumps and gloss."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demo_scenes.colours import hsv, mix, smoothstep, tint
from demo_scenes.noise import Array, SolidNoise

Paint = Callable[[Array, Array, Array], Array]
TAU = 2 * np.pi


@dataclass(frozen=True)
class Material:
    """The appearance of a solid's surface.

    Attributes:
        paint: function of points x, y, z (n,), in the solid's frame, to display colours (3, n).
        gloss: strength of highlights and reflections, in [0, 1].
        sharpness: exponent of the highlights; a high value is polished.
        bump: strength of the perturbation of the surface normal.
        bump_scale: bumps per unit of length.
    """

    paint: Paint
    gloss: float = 0.1
    sharpness: float = 20.0
    bump: float = 0.0
    bump_scale: float = 6.0


def _turn(x: Array, z: Array) -> Array:
    """Return the angle around the axis, in turns from -0.5 to 0.5."""
    turn: Array = np.arctan2(z, x) / np.float32(TAU)
    return turn


def _stripe(phase: Array, share: float, soft: float = 0.02) -> Array:
    """Return a periodic stripe of width ``share``: 1 inside, 0 outside, with soft edges."""
    part = np.abs((phase % 1) - 0.5)
    return 1 - smoothstep(share / 2 - soft, share / 2 + soft, part)


def _plain(main: Array, noise: SolidNoise, amount: float, scale: float) -> Paint:
    def paint(x: Array, y: Array, z: Array) -> Array:
        tone = 1 - amount / 2 + amount * noise(x * scale, y * scale, z * scale, octaves=3)
        return tint(main, tone)

    return paint


def _spots(main: Array, accent: Array, rng: np.random.Generator, count: int) -> Paint:
    """Paint round spots, distributed over all directions by a Fibonacci spiral."""
    order = np.arange(count)
    up = (1 - 2 * (order + 0.5) / count).astype(np.float32)
    angle = (order * 2.39996 + rng.uniform(0, TAU)).astype(np.float32)
    side = np.sqrt(1 - up * up)
    right, forward = side * np.cos(angle), side * np.sin(angle)
    size = float(np.cos(1.15 / np.sqrt(count)))

    def paint(x: Array, y: Array, z: Array) -> Array:
        y = y - 1
        norm = np.sqrt(x * x + y * y + z * z) + 1e-6
        closest = np.full(x.shape, -1, np.float32)
        for i in range(count):
            closest = np.maximum(closest, x * right[i] + y * up[i] + z * forward[i])
        return mix(main, accent, smoothstep(size - 0.01, size + 0.01, closest / norm))

    return paint


def ball(main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator) -> Material:
    """A toy ball: sectors, bands, spots, checks, swirls, or one colour."""
    style, count = rng.integers(6), int(rng.integers(3, 6))

    def sectors(x: Array, y: Array, z: Array) -> Array:
        pole = smoothstep(0.93, 0.95, np.abs(y - 1))
        return mix(main, accent, np.maximum(_stripe(_turn(x, z) * count, 0.5), pole))

    def bands(x: Array, y: Array, z: Array) -> Array:
        return mix(main, accent, _stripe(y * count / 2 + 0.25, 0.4))

    def checks(x: Array, y: Array, z: Array) -> Array:
        around = 2 * _stripe(_turn(x, z) * count, 0.5) - 1
        polar = np.arccos(np.clip(y - 1, -1, 1)) / np.float32(np.pi)
        upward = 2 * _stripe(polar * count, 0.5) - 1
        return mix(main, accent, (1 + around * upward) / 2)

    def swirls(x: Array, y: Array, z: Array) -> Array:
        warp = noise(x * 2, y * 2, z * 2, octaves=3)
        return mix(main, accent, _stripe(y * 1.2 + 1.6 * warp, 0.35, 0.1))

    spots = _spots(main, accent, rng, int(rng.integers(12, 30)))
    paints = (sectors, bands, checks, swirls, spots, _plain(main, noise, 0.25, 4))
    return Material(paints[style], rng.uniform(0.15, 0.8), rng.uniform(20, 90))


def box(main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator) -> Material:
    """A gift with a ribbon, a wooden block, a printed carton, or a dotted box."""
    style, band, count = rng.integers(4), rng.uniform(0.12, 0.2), rng.uniform(2, 4)
    wood = hsv(rng.uniform(0.06, 0.1), rng.uniform(0.35, 0.65), rng.uniform(0.6, 0.9))

    def ribbon(x: Array, y: Array, z: Array) -> Array:
        cross = np.minimum(np.abs(x), np.abs(z))
        return mix(accent, main, smoothstep(band, band + 0.02, cross))

    def block(x: Array, y: Array, z: Array) -> Array:
        ring = np.sqrt((x + 1.4) ** 2 + (y - 0.3) ** 2) + 0.12 * noise(x * 2, y * 2, z, octaves=2)
        grain = noise(x * 14, y * 14, z * 1.2, octaves=2)
        return mix(wood, wood * np.float32(0.55), 0.6 * (ring * 7 % 1) ** 2 + 0.3 * grain)

    def carton(x: Array, y: Array, z: Array) -> Array:
        label = _stripe(y * count / 2, 0.45) * (1 - smoothstep(0.7, 0.72, np.abs(x)))
        return tint(mix(main, accent, label), 0.92 + 0.12 * noise(x * 9, y * 9, z * 9))

    def dots(x: Array, y: Array, z: Array) -> Array:
        # On every face one of the three cosines is nearly constant.
        waves = [np.cos(axis * np.float32(count * TAU * 0.7)) for axis in (x, y, z)]
        return mix(main, accent, smoothstep(0.8, 1.0, waves[0] * waves[1] + waves[2] * 0.4))

    paints = (ribbon, block, carton, dots)
    return Material(paints[style], rng.uniform(0.02, 0.3), 25, bump=0.06, bump_scale=9)


def can(main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator) -> Material:
    """A metal tin with a printed label: bands, a zigzag, vertical stripes or a roundel."""
    style, count = rng.integers(4), int(rng.integers(4, 9))
    metal, phase = hsv(rng.uniform(0.08, 0.6), 0.06, 0.78), float(rng.uniform(0, 1))

    def paint(x: Array, y: Array, z: Array) -> Array:
        turn, radius = _turn(x, z) + phase, np.sqrt(x * x + z * z)
        if style == 0:
            weight = _stripe(y * 1.4 + 0.2, 0.4)
        elif style == 1:
            zigzag = np.abs(turn * count % 1 - 0.5)
            weight = _stripe(y * 1.2 + zigzag * 0.8, 0.45)
        elif style == 2:
            weight = _stripe(turn * count, 0.45)
        else:
            near = np.hypot((turn * 2 % 1 - 0.5) * 2.2, y - 0.75)
            weight = 1 - smoothstep(0.42, 0.45, near)
        label = mix(main, accent, weight)
        end = smoothstep(0.0, 0.05, np.minimum(y - 0.1, radius.max() * 10))
        lid = 1 - smoothstep(0.86, 0.9, radius / radius.max())
        return mix(mix(metal, label, end), metal, lid)

    return Material(paint, rng.uniform(0.4, 0.9), rng.uniform(30, 70))


def mug(main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator) -> Material:
    """A glazed mug: plain, dipped, banded or speckled stoneware."""
    style, level = rng.integers(4), rng.uniform(0.5, 1.0)

    def dipped(x: Array, y: Array, z: Array) -> Array:
        drip = 0.25 * noise(x * 2.5, y * 0.2, z * 2.5, octaves=2)
        return mix(accent, main, smoothstep(level, level + 0.03, y + drip))

    def banded(x: Array, y: Array, z: Array) -> Array:
        return mix(main, accent, _stripe(y * 2.2 + level, 0.3))

    def speckled(x: Array, y: Array, z: Array) -> Array:
        specks = smoothstep(0.72, 0.78, noise(x * 16, y * 16, z * 16))
        return mix(main, main * np.float32(0.35), specks)

    paints = (dipped, banded, speckled, _plain(main, noise, 0.15, 3))
    return Material(paints[style], rng.uniform(0.4, 0.9), rng.uniform(40, 110))


def bottle(main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator) -> Material:
    """A glazed bottle with a paper label and a capsule over its neck."""
    low, high = rng.uniform(0.3, 0.45), rng.uniform(0.85, 1.05)
    paper = hsv(rng.uniform(0.08, 0.14), rng.uniform(0.05, 0.25), 0.92)

    def paint(x: Array, y: Array, z: Array) -> Array:
        label = smoothstep(low, low + 0.03, y) * (1 - smoothstep(high, high + 0.03, y))
        printed = _stripe(y * 3.5, 0.3) * label
        capsule = smoothstep(1.7, 1.73, y)
        glass = tint(main, 0.85 + 0.3 * noise(x * 2, y * 2, z * 2))
        return mix(mix(mix(glass, paper, label), accent, printed), accent, capsule)

    return Material(paint, rng.uniform(0.6, 1.0), rng.uniform(50, 120))


def pebble(main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator) -> Material:
    """A stone: granite, layers, or veins."""
    style = rng.integers(3)
    hue, value = rng.uniform(0, 1), rng.uniform(0.25, 0.9)
    stone = hsv(hue, rng.uniform(0.02, 0.25), value)
    other = hsv(hue + 0.05, rng.uniform(0.05, 0.3), value + (0.4 if value < 0.5 else -0.4))

    def granite(x: Array, y: Array, z: Array) -> Array:
        grain = noise(x * 15, y * 15, z * 15, octaves=2)
        return mix(stone, other, smoothstep(0.5, 0.65, grain) * 0.8)

    def layers(x: Array, y: Array, z: Array) -> Array:
        bend = noise(x * 1.3, y * 1.3, z * 1.3, octaves=3)
        return mix(stone, other, 0.7 * _stripe(y * 2.2 + x * 0.5 + bend * 1.5, 0.4, 0.12))

    def veins(x: Array, y: Array, z: Array) -> Array:
        ridge = np.abs(noise(x * 1.6, y * 1.6, z * 1.6, octaves=4) - 0.5)
        tone = 0.85 + 0.3 * noise(x * 9, y * 9, z * 9, octaves=2)
        return tint(mix(stone, other, 1 - smoothstep(0, 0.035, ridge)), tone)

    return Material((granite, layers, veins)[style], 0.15, 15, bump=0.25, bump_scale=7)


def mushroom(main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator) -> Material:
    """A toadstool: a warm cap with pale flecks over a pale stem."""
    cap = hsv(rng.choice([0.0, 0.02, 0.07, 0.1]), rng.uniform(0.6, 0.9), rng.uniform(0.5, 0.85))
    stem = hsv(0.11, 0.15, 0.9)
    flecked = rng.random() < 0.7

    def paint(x: Array, y: Array, z: Array) -> Array:
        radius = np.sqrt(x * x + z * z)
        upper = smoothstep(0.42, 0.5, radius + smoothstep(0.95, 1.3, y))
        shade = tint(cap, 0.8 + 0.35 * noise(x * 3, y * 3, z * 3, octaves=3))
        if flecked:
            flecks = smoothstep(0.66, 0.72, noise(x * 5, y * 5, z * 5))
            shade = mix(shade, stem, flecks)
        fibre = tint(stem, 0.8 + 0.25 * noise(x * 12, y, z * 12))
        return mix(fibre, shade, upper)

    return Material(paint, 0.25, 30, bump=0.06, bump_scale=6)


def fruit(
    unripe: Array,
    ripe: Array,
    *,
    stalk_above: float = np.inf,
    streaks: float = 0.0,
    bump: float = 0.0,
) -> Callable[[Array, Array, SolidNoise, np.random.Generator], Material]:
    """Return a function that draws a fruit's material.

    Args:
        unripe: display colour (3,) of unripe skin.
        ripe: display colour (3,) of ripe skin.
        stalk_above: height above which points near the axis belong to the stalk.
        streaks: strength of streaks from pole to pole, in place of flecks, in [0, 1].
        bump: see ``Material``.
    """
    stalk = hsv(0.09, 0.6, 0.32)

    def material(
        main: Array, accent: Array, noise: SolidNoise, rng: np.random.Generator
    ) -> Material:
        shift = np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
        first, second = np.clip(unripe * shift, 0, 1), np.clip(ripe * shift, 0, 1)
        age, side = rng.uniform(-0.2, 0.2), rng.uniform(0.1, 0.45)

        def paint(x: Array, y: Array, z: Array) -> Array:
            patch = noise(x * 1.2, y * 1.2, z * 1.2, octaves=3)
            norm = np.sqrt(x * x + z * z) + 1e-3
            streak = noise(x / norm * 9, y * 0.7, z / norm * 9, octaves=2)
            fleck = noise(x * 14, y * 14, z * 14)
            weight = patch + age + side * x + streaks * (streak - 0.5)
            flesh = mix(first, second, smoothstep(0.3, 0.75, weight))
            flesh = tint(flesh, 0.9 + 0.2 * fleck * (1 - streaks) + 0.06 * streaks)
            return mix(flesh, stalk, ((y > stalk_above) & (norm < 0.2)).astype(np.float32))

        return Material(paint, rng.uniform(0.2, 0.6), rng.uniform(20, 60), bump, 12)

    return material
