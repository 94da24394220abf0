"""Grounds that consist of many small overlapping things: grass, gravel and leaves."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from demo_scenes.colours import hsv
from demo_scenes.noise import Array, fractal
from demo_scenes.surfaces import SIDE, lit, speckled

# How a thing is drawn: its outline moved by so many pixels, scaled, and made darker or lighter.
Layer = tuple[float, float, float]


def _strew(
    rng: np.random.Generator,
    ground: Array,
    outlines: NDArray[np.float64],
    colours: Array,
    layers: tuple[Layer, ...],
) -> Array:
    """Draw things at random places, later ones over earlier ones, as a seamless texture.

    Args:
        rng: draws the places.
        ground: display colour (3,) of the background.
        outlines: polygons around the origin in pixels (things, corners, 2).
        colours: display colours (things, 3).
        layers: the layers drawn for each thing, from bottom to top.
    """
    count = len(outlines)
    margin = 1.2 * float(np.abs(outlines).max())
    middles = rng.uniform(0, SIDE, (count, 2))
    order, places = [np.arange(count)], [middles]
    for across in (-SIDE, 0, SIDE):
        for down in (-SIDE, 0, SIDE):
            moved = middles + np.array([across, down])
            reaching = ((moved > -margin) & (moved < SIDE + margin)).all(axis=1)
            if across or down:
                order.append(np.flatnonzero(reaching))
                places.append(moved[reaching])
    thing, place = np.concatenate(order), np.concatenate(places)
    by_age = np.argsort(thing, kind="stable")
    thing, place = thing[by_age], place[by_age]
    polygons, fills = [], []
    for shift, scale, brightness in layers:
        corners = outlines[thing] * scale + place[:, None] + shift
        polygons.append(corners.reshape(len(thing), -1).tolist())
        fills.append(_bytes(colours[thing] * np.float32(brightness)))
    canvas = Image.new("RGB", (SIDE, SIDE), _bytes(ground[None])[0])
    draw = ImageDraw.Draw(canvas)
    for i in range(len(thing)):
        for polygon, fill in zip(polygons, fills, strict=True):
            draw.polygon(polygon[i], fill=fill[i])
    return np.ascontiguousarray(np.moveaxis(np.asarray(canvas, np.float32), 2, 0)) / 255


def _bytes(colours: Array) -> list[tuple[int, int, int]]:
    return [(r, g, b) for r, g, b in (np.clip(colours, 0, 1) * 255).astype(int).tolist()]


def _outlines(
    rng: np.random.Generator, count: int, *, reach: tuple[float, float], slimness: float
) -> NDArray[np.float64]:
    """Draw irregular ellipses at random angles, (count, 9, 2); ``reach`` bounds half lengths."""
    angle = np.linspace(0, 2 * np.pi, 9, endpoint=False)[None, :]
    uneven = rng.uniform(0.88, 1.1, (count, 9)) * rng.uniform(*reach, (count, 1))
    along = uneven * np.cos(angle)
    across = uneven * np.sin(angle) * slimness * rng.uniform(0.75, 1.25, (count, 1))
    turn = rng.uniform(0, 2 * np.pi, (count, 1))
    cosine, sine = np.cos(turn), np.sin(turn)
    return np.stack([along * cosine - across * sine, along * sine + across * cosine], axis=-1)


def grass(rng: np.random.Generator) -> Array:
    """A lawn; upper blades are lighter."""
    hue, count = rng.uniform(0.18, 0.28), 3200
    angle = rng.normal(-np.pi / 2, 0.75, count)
    reach = rng.uniform(9, 20, (count, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    foot = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * rng.uniform(0.7, 1.3, (count, 1))
    blades = np.stack([-foot, foot, reach], axis=1)
    values = np.linspace(0.27, 0.54, count) + rng.normal(0, 0.05, count)
    saturation = rng.uniform(0.4, 0.62, count)
    colours = hsv(rng.normal(hue, 0.02, count), saturation, values)
    lawn = _strew(rng, hsv(hue, 0.55, 0.27), blades, colours, ((0, 1, 1),))
    return lit(lawn, 0.8 + 0.4 * fractal(rng, SIDE, cells=4, octaves=3))


def gravel(rng: np.random.Generator) -> Array:
    """Rounded small stones."""
    hue, value, size = rng.uniform(0.05, 0.15), rng.uniform(0.5, 0.75), rng.uniform(7, 11)
    count = int(1.1 * (SIDE / size) ** 2)
    stones = _outlines(rng, count, reach=(0.6 * size, 1.2 * size), slimness=0.7)
    colours = hsv(
        rng.normal(hue, 0.02, count),
        rng.uniform(0.03, 0.25, count),
        rng.normal(value, 0.07, count),
    )
    # Shade, body and lit side.
    layers = ((1.2, 1.05, 0.62), (0, 1, 0.92), (-0.8, 0.65, 1.04))
    strewn = _strew(rng, hsv(hue, 0.2, value * 0.45), stones, colours, layers)
    return lit(strewn, speckled(rng, 0.14) * (0.85 + 0.3 * fractal(rng, SIDE, cells=4)))


def leaves(rng: np.random.Generator) -> Array:
    """Fallen leaves; upper leaves are lighter."""
    hue, count = rng.uniform(0.05, 0.1), 600
    outlines = _outlines(rng, count, reach=(11, 21), slimness=0.42)
    colours = hsv(
        rng.normal(hue, 0.02, count),
        rng.uniform(0.4, 0.7, count),
        np.linspace(0.28, 0.52, count) + rng.normal(0, 0.04, count),
    )
    layers = ((1.5, 1, 0.5), (0, 1, 1), (-0.7, 0.55, 1.08))
    strewn = _strew(rng, hsv(hue, 0.5, 0.18), outlines, colours, layers)
    return lit(strewn, 0.75 + 0.5 * fractal(rng, SIDE, cells=40, octaves=4, gain=0.7))
