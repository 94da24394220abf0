"""The catalogue of the demo's scenes: kinds of solids, and places to put them."""

from collections.abc import Callable

import numpy as np

from demo_scenes import litter, materials, shapes, surfaces
from demo_scenes.colours import difference, hsv
from demo_scenes.materials import Material, fruit
from demo_scenes.noise import Array, SolidNoise
from demo_scenes.shapes import Shape
from demo_scenes.surfaces import Surface

MakeShape = Callable[[np.random.Generator], Shape]
MakeMaterial = Callable[[Array, Array, SolidNoise, np.random.Generator], Material]

# A kind of solid: functions that draw its shape and its material.
Kind = tuple[MakeShape, MakeMaterial]
Solid = tuple[str, Shape, Material]

_FRUIT: tuple[Kind, ...] = (
    (
        shapes.apple,
        fruit(hsv(0.17, 0.65, 0.75), hsv(0.99, 0.85, 0.7), stalk_above=1.35, streaks=0.7),
    ),
    (
        shapes.apple,
        fruit(hsv(0.22, 0.7, 0.6), hsv(0.2, 0.6, 0.8), stalk_above=1.35, streaks=0.3),
    ),
    (shapes.ball, fruit(hsv(0.07, 0.95, 0.95), hsv(0.09, 0.9, 1.0), stalk_above=1.98, bump=0.25)),
    (shapes.pear, fruit(hsv(0.19, 0.65, 0.7), hsv(0.12, 0.65, 0.75), stalk_above=1.8, bump=0.06)),
    (shapes.lemon, fruit(hsv(0.14, 0.8, 0.9), hsv(0.155, 0.75, 0.82), bump=0.25)),
    (shapes.banana, fruit(hsv(0.14, 0.75, 0.9), hsv(0.155, 0.7, 0.78), streaks=0.2)),
    (
        shapes.pumpkin,
        fruit(hsv(0.06, 0.9, 0.85), hsv(0.09, 0.85, 0.85), stalk_above=1.2, streaks=0.3, bump=0.05),
    ),
)

# Category -> (its kinds, its relative frequency), in the order of the category ids.
CATEGORIES: dict[str, tuple[tuple[Kind, ...], float]] = {
    "ball": (((shapes.ball, materials.ball),), 1.2),
    "box": (((shapes.box, materials.box),), 1.3),
    "can": (((shapes.can, materials.can),), 1.0),
    "mug": (((shapes.mug, materials.mug),), 1.2),
    "bottle": (((shapes.bottle, materials.bottle),), 1.0),
    "pebble": (((shapes.pebble, materials.pebble),), 0.8),
    "mushroom": (((shapes.mushroom, materials.mushroom),), 0.8),
    "fruit": (_FRUIT, 2.0),
}

# Places: (grounds, walls) that go together.
PLACES: tuple[tuple[tuple[Surface, ...], tuple[Surface, ...]], ...] = (
    (
        (surfaces.planks, surfaces.planks, surfaces.cloth, surfaces.marble, surfaces.paint),
        (surfaces.paint, surfaces.paint, surfaces.cloth, surfaces.bricks, surfaces.tiles),
    ),
    (
        (surfaces.tiles, surfaces.carpet, surfaces.concrete, surfaces.planks),
        (surfaces.paint, surfaces.bricks, surfaces.concrete),
    ),
    (
        (litter.grass, surfaces.sand, litter.gravel, litter.leaves, surfaces.concrete),
        (surfaces.bushes, surfaces.bushes, surfaces.bricks, surfaces.planks),
    ),
)


def draw_solid(rng: np.random.Generator, noise: SolidNoise, ground: Array) -> Solid:
    """Draw a solid at random: its category, shape and material.

    Usually its mean colour differs clearly from ``ground``, a display colour (3,).
    """
    names = list(CATEGORIES)
    odds = np.array([weight for _, weight in CATEGORIES.values()])
    wanted = 0.25 if rng.random() < 0.85 else 0.1
    for _ in range(8):
        category = names[rng.choice(len(names), p=odds / odds.sum())]
        kinds = CATEGORIES[category][0]
        make_shape, make_material = kinds[rng.integers(len(kinds))]
        main, accent = _draw_colours(rng)
        shape, material = make_shape(rng), make_material(main, accent, noise, rng)
        if difference(_mean_colour(rng, shape, material), ground) > wanted:
            break
    return category, shape, material


def _draw_colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw two clearly different display colours, (3,) each."""
    main = hsv(rng.random(), rng.uniform(0.25, 0.85), rng.uniform(0.3, 0.9))
    while True:
        accent = hsv(rng.random(), rng.uniform(0.0, 0.7), rng.uniform(0.15, 0.95))
        if difference(main, accent) > 0.2:
            return main, accent


def _mean_colour(rng: np.random.Generator, shape: Shape, material: Material) -> Array:
    directions = rng.normal(size=(3, 64))
    directions *= 0.8 * shape.radius / np.linalg.norm(directions, axis=0)
    x, y, z = directions.astype(np.float32)
    colours = material.paint(x, np.abs(y + np.float32(shape.middle)), z)
    mean: Array = colours.mean(axis=1)
    return mean
