"""What the demo's scenes are made of: the kinds of solids, and the places they are in."""

from collections.abc import Callable

import numpy as np

from cuvler.demo_data import litter, materials, shapes, surfaces
from cuvler.demo_data.colours import difference, hsv
from cuvler.demo_data.materials import Material
from cuvler.demo_data.noise import Array, SolidNoise
from cuvler.demo_data.shapes import Shape
from cuvler.demo_data.surfaces import Surface

MakeShape = Callable[[np.random.Generator], Shape]
MakeMaterial = Callable[[Array, Array, SolidNoise, np.random.Generator], Material]

WOODY = hsv(0.08, 0.6, 0.3)

# Category -> (its solids with their materials, how often it is drawn).
CATEGORIES: dict[str, tuple[tuple[tuple[MakeShape, MakeMaterial], ...], float]] = {
    "ball": (((shapes.ball, materials.ball),), 1.2),
    "box": (((shapes.box, materials.box),), 1.3),
    "can": (((shapes.can, materials.can),), 1.0),
    "mug": (((shapes.mug, materials.mug),), 1.2),
    "bottle": (((shapes.bottle, materials.bottle),), 1.0),
    "pebble": (((shapes.pebble, materials.pebble),), 0.8),
    "mushroom": (((shapes.mushroom, materials.mushroom),), 0.8),
    "fruit": (
        (
            (
                shapes.apple,
                materials.fruit(
                    (hsv(0.17, 0.65, 0.75), hsv(0.99, 0.85, 0.7)),
                    (1.35, WOODY),
                    streaks=0.7,
                    bump=0.0,
                ),
            ),
            (
                shapes.apple,
                materials.fruit(
                    (hsv(0.22, 0.7, 0.6), hsv(0.2, 0.6, 0.8)), (1.35, WOODY), streaks=0.3, bump=0.0
                ),
            ),
            (
                shapes.ball,
                materials.fruit(
                    (hsv(0.07, 0.95, 0.95), hsv(0.09, 0.9, 1.0)),
                    (1.98, WOODY),
                    streaks=0,
                    bump=0.25,
                ),
            ),
            (
                shapes.pear,
                materials.fruit(
                    (hsv(0.19, 0.65, 0.7), hsv(0.12, 0.65, 0.75)),
                    (1.8, WOODY),
                    streaks=0,
                    bump=0.06,
                ),
            ),
            (
                shapes.lemon,
                materials.fruit(
                    (hsv(0.14, 0.8, 0.9), hsv(0.155, 0.75, 0.82)), (9, WOODY), streaks=0, bump=0.25
                ),
            ),
            (
                shapes.banana,
                materials.fruit(
                    (hsv(0.14, 0.75, 0.9), hsv(0.155, 0.7, 0.78)), (9, WOODY), streaks=0.2, bump=0
                ),
            ),
            (
                shapes.pumpkin,
                materials.fruit(
                    (hsv(0.06, 0.9, 0.85), hsv(0.09, 0.85, 0.85)),
                    (1.2, hsv(0.2, 0.5, 0.4)),
                    streaks=0.3,
                    bump=0.05,
                ),
            ),
        ),
        2.0,
    ),
}

# Places -> (grounds, walls): what may be behind what may be below.
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


def draw_solid(
    rng: np.random.Generator, noise: SolidNoise, ground: Array
) -> tuple[str, Shape, Material]:
    """Choose a category, a shape and a material.

    Its mean colour stands out from the ground's, a display colour (3,), more often than not.
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
    """Two display colours, (3,) each, that are told apart easily."""
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
