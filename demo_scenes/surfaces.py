"""The demo's grounds and walls: square textures that repeat seamlessly.

Each function draws a random texture and returns display colours in [0, 1], (3, SIDE, SIDE). A
texture covers SPAN x SPAN scene units.
"""

from collections.abc import Callable

import numpy as np

from demo_scenes.colours import hsv, mix, smoothstep, tint
from demo_scenes.noise import Array, fractal

Surface = Callable[[np.random.Generator], Array]

SIDE = 320
SPAN = 9.6

_AXIS = (np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) / SIDE


def relief(height: Array, strength: float) -> Array:
    """Return the brightness, around 1, of a height field lit from one side."""
    slope = np.roll(height, 1, axis=1) - np.roll(height, -1, axis=1)
    slope = slope + np.roll(height, 1, axis=0) - np.roll(height, -1, axis=0)
    return np.clip(1 + strength * slope, 0.3, 1.7)


def speckled(rng: np.random.Generator, amount: float) -> Array:
    """Return the brightness, around 1, of fine grain."""
    return 1 + amount * (rng.random((SIDE, SIDE), dtype=np.float32) - np.float32(0.5))


def lit(colour: Array, brightness: Array) -> Array:
    """Scale a colour or planes by brightnesses (SIDE, SIDE), clipped."""
    return np.clip(tint(colour, brightness), 0, 1)


def planks(rng: np.random.Generator) -> Array:
    """Wooden boards side by side."""
    boards = int(rng.integers(5, 10))
    hue, value = rng.uniform(0.05, 0.1), rng.uniform(0.4, 0.85)
    light = hsv(hue, rng.uniform(0.3, 0.6), value)
    dark = hsv(hue - 0.01, rng.uniform(0.5, 0.7), value * rng.uniform(0.5, 0.7))
    # Rows are boards; a random shift of each board breaks the grain at its edges.
    place = _AXIS * boards
    board = place.astype(np.intp)
    grain = fractal(rng, SIDE, cells=(64, 2), octaves=3, gain=0.7)
    wave = fractal(rng, SIDE, cells=(8, 2), octaves=2)
    shift = rng.integers(0, SIDE, boards)[board]
    columns = (np.arange(SIDE)[None, :] + shift[:, None]) % SIDE
    rows = np.arange(SIDE)[:, None]
    grain, wave = grain[rows, columns], wave[rows, columns]
    rings = 0.5 + 0.5 * np.sin((wave * 9 + grain * 2) * np.float32(2 * np.pi))
    tone = rng.uniform(0.82, 1.12, boards).astype(np.float32)[board]
    gap = smoothstep(0, 0.035, np.minimum(place % 1, 1 - place % 1))
    brightness = tone[:, None] * (0.45 + 0.55 * gap[:, None]) * speckled(rng, 0.05)
    return lit(mix(light, dark, 0.55 * grain + 0.3 * rings * grain), brightness)


def sand(rng: np.random.Generator) -> Array:
    """Sand with wind ripples and grains."""
    base = hsv(rng.uniform(0.07, 0.12), rng.uniform(0.2, 0.45), rng.uniform(0.65, 0.9))
    warp = fractal(rng, SIDE, cells=4, octaves=4)
    ripples = int(rng.integers(8, 22))
    phase = (_AXIS[:, None] * ripples + warp * rng.uniform(2, 4)) * np.float32(2 * np.pi)
    height = np.sin(phase) * rng.uniform(0, 1) + 3 * warp
    speckle = np.where(rng.random((SIDE, SIDE)) < 0.02, 0.75, 1).astype(np.float32)
    return lit(base, relief(height, 0.35) * speckled(rng, 0.25) * speckle)


def tiles(rng: np.random.Generator) -> Array:
    """Ceramic tiles in a grid, plain or in two colours, with grout."""
    count = int(rng.integers(3, 6)) * 2
    hue = rng.uniform(0, 1)
    first = hsv(hue, rng.uniform(0.05, 0.4), rng.uniform(0.5, 0.9))
    second = first
    if rng.random() < 0.5:
        second = first + (hsv(hue, rng.uniform(0, 0.5), rng.uniform(0.25, 0.9)) - first) / 2
    place, number = _AXIS * count % 1, (_AXIS * count).astype(np.intp)
    edge = np.minimum(place, 1 - place)
    edge = np.minimum(edge[:, None], edge[None, :])
    odd = ((number[:, None] + number[None, :]) % 2).astype(np.float32)
    tone = rng.normal(1, 0.04, (count, count)).astype(np.float32)
    cloud = fractal(rng, SIDE, cells=10, octaves=4)
    glaze = tint(mix(first, second, odd), 0.9 + 0.2 * cloud)
    glaze = glaze * tone[number[:, None], number[None, :]]
    grout = hsv(hue, 0.05, rng.uniform(0.35, 0.8))
    glaze = mix(grout, glaze, smoothstep(0.015, 0.035, edge))
    return lit(glaze, relief(smoothstep(0, 0.07, edge), 0.5) * speckled(rng, 0.04))


def cloth(rng: np.random.Generator) -> Array:
    """Woven fabric: plain, striped or gingham, slightly creased."""
    hue, count = rng.uniform(0, 1), int(rng.integers(7, 15))
    first = hsv(hue, rng.uniform(0.1, 0.75), rng.uniform(0.35, 0.9))
    pale = hsv(hue + rng.normal(0, 0.06), rng.uniform(0.0, 0.3), rng.uniform(0.75, 0.95))
    second = first + (pale - first) * rng.uniform(0.3, 0.8)
    band = (np.sin(_AXIS * np.float32(2 * np.pi * count)) > 0).astype(np.float32)
    style = rng.integers(3)
    weight: Array = np.zeros((SIDE, SIDE), np.float32)
    if style == 1:
        weight = weight + band[None, :]
    elif style == 2:
        weight = (band[:, None] + band[None, :]) / 2
    thread = np.sin(_AXIS * np.float32(2 * np.pi * 128))
    weave = 1 + 0.09 * thread[:, None] * thread[None, :]
    crease = relief(fractal(rng, SIDE, cells=3, octaves=3), rng.uniform(4, 14))
    return lit(mix(first, second, weight), weave * crease * speckled(rng, 0.12))


def marble(rng: np.random.Generator) -> Array:
    """A polished slab with veins."""
    hue, pale = rng.uniform(0, 1), rng.random() < 0.65
    base = hsv(hue, rng.uniform(0.02, 0.12), rng.uniform(0.75, 0.92) if pale else 0.25)
    vein = hsv(hue, rng.uniform(0.05, 0.2), 0.4 if pale else 0.65)
    warp = fractal(rng, SIDE, cells=5, octaves=5)
    veins = np.abs(fractal(rng, SIDE, cells=4, octaves=6, gain=0.6) - 0.5 + 0.15 * (warp - 0.5))
    return mix(base, vein, 0.75 * (1 - smoothstep(0, 0.09, veins)) * warp + 0.15 * warp)


def concrete(rng: np.random.Generator) -> Array:
    """Concrete or plaster: stains, pores and fine grain."""
    base = hsv(rng.uniform(0, 1), rng.uniform(0.0, 0.25), rng.uniform(0.4, 0.85))
    stain = fractal(rng, SIDE, cells=4, octaves=6, gain=0.65)
    pores = smoothstep(0.72, 0.8, fractal(rng, SIDE, cells=100, octaves=2))
    height = stain * 4 - pores * 0.3
    return lit(base, (0.8 + 0.35 * stain) * relief(height, 0.8) * speckled(rng, 0.1))


def carpet(rng: np.random.Generator) -> Array:
    """A pile carpet in one colour."""
    base = hsv(rng.uniform(0, 1), rng.uniform(0.15, 0.65), rng.uniform(0.3, 0.75))
    tufts = fractal(rng, SIDE, cells=128, octaves=2, gain=0.8)
    worn = fractal(rng, SIDE, cells=5, octaves=3)
    return lit(base, (0.55 + 0.65 * tufts) * (0.85 + 0.3 * worn))


def paint(rng: np.random.Generator) -> Array:
    """A painted wall."""
    base = hsv(rng.uniform(0, 1), rng.uniform(0.05, 0.45), rng.uniform(0.5, 0.9))
    roughness = fractal(rng, SIDE, cells=64, octaves=3, gain=0.7)
    return lit(base, relief(roughness, 0.25) * (0.93 + 0.1 * fractal(rng, SIDE, cells=3)))


def bricks(rng: np.random.Generator) -> Array:
    """A brick wall."""
    rows, columns = 20, 8
    hue, value = rng.uniform(0.0, 0.06), rng.uniform(0.4, 0.7)
    row = (_AXIS * rows).astype(np.intp)
    along = _AXIS[None, :] * columns + (row % 2).astype(np.float32)[:, None] / 2
    down = (_AXIS * rows % 1)[:, None]
    edge = np.minimum(np.minimum(along % 1, 1 - along % 1) * 2.2, np.minimum(down, 1 - down))
    tone = rng.normal(1, 0.12, (rows, columns)).astype(np.float32)
    tone = tone[row[:, None], along.astype(np.intp) % columns]
    brick = tint(hsv(hue, rng.uniform(0.4, 0.65), value), tone)
    face = smoothstep(0.06, 0.14, edge)
    rough = fractal(rng, SIDE, cells=60, octaves=4, gain=0.7)
    wall = mix(hsv(hue, 0.1, rng.uniform(0.5, 0.8)), brick, face)
    return lit(wall, relief(face + rough, 0.4) * (0.8 + 0.4 * rough))


def bushes(rng: np.random.Generator) -> Array:
    """Bushes and their shade far behind an outdoor scene, out of focus."""
    hue = rng.uniform(0.17, 0.33)
    clumps = fractal(rng, SIDE, cells=10, octaves=4, gain=0.6)
    shade = mix(hsv(hue, 0.55, 0.22), hsv(hue - 0.03, 0.45, 0.68), smoothstep(0.3, 0.8, clumps))
    sky = hsv(0.56, rng.uniform(0.05, 0.4), 0.9)
    return mix(shade, sky, smoothstep(0.62, 0.75, fractal(rng, SIDE, cells=14, octaves=3)))
