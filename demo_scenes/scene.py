"""The demo's scenes: camera, light, ground, wall and solids."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_scenes import surfaces
from demo_scenes.catalogue import PLACES
from demo_scenes.materials import Material
from demo_scenes.noise import Array, SolidNoise
from demo_scenes.shapes import Shape


@dataclass(frozen=True)
class View:
    """A pinhole camera; ``axes`` are the unit vectors to the right, up and forward."""

    width: int
    height: int
    focal: float
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]

    def rays(self, columns: Array, rows: Array) -> tuple[Array, Array, Array]:
        """Return the unit directions, each (n,), of the rays through image positions in pixels."""
        right = (columns - self.width / 2) / self.focal
        up = (self.height / 2 - rows) / self.focal
        norm = 1 / np.sqrt(right * right + up * up + 1)
        matrix = self.axes.astype(np.float32)
        x, y, z = (
            (right * matrix[0, i] + up * matrix[1, i] + matrix[2, i]) * norm for i in range(3)
        )
        return x, y, z

    def ray(self, column: float, row: float) -> NDArray[np.float64]:
        """Return the unit direction (3,) of the ray through an image position in pixels."""
        places = np.array([column], np.float32), np.array([row], np.float32)
        return np.concatenate(self.rays(*places)).astype(np.float64)

    def reaches(self, depth: float) -> bool:
        """Whether the plane z = ``depth`` is visible above the ground."""
        corners = np.array([0, self.width], np.float32), np.zeros(2, np.float32)
        _, down, ahead = self.rays(*corners)
        return bool((self.origin[1] * ahead > -down * (depth - self.origin[2])).any())

    def project(self, point: NDArray[np.float64]) -> tuple[float, float, float]:
        """Return column and row of a point, in pixels, and its depth along the viewing axis."""
        right, up, depth = self.axes @ (point - self.origin)
        column = self.width / 2 + self.focal * right / depth
        return float(column), float(self.height / 2 - self.focal * up / depth), float(depth)


@dataclass(frozen=True)
class Body:
    """A solid placed in the scene.

    Attributes:
        category: category name.
        shape: the shape.
        material: the material.
        rotation: (3, 3), from the solid's frame to scene coordinates.
        position: (3,), origin of the solid's frame in scene coordinates.
        scale: scene units per unit of the solid's frame.
    """

    category: str
    shape: Shape
    material: Material
    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    scale: float

    def centre(self) -> NDArray[np.float64]:
        """Return the centre of the bounding sphere, in scene coordinates."""
        offset = self.rotation @ np.array([0, self.shape.middle, 0])
        centre: NDArray[np.float64] = self.position + self.scale * offset
        return centre

    def to_local(self, x: Array, y: Array, z: Array, *, points: bool) -> tuple[Array, ...]:
        """Convert points or directions from scene coordinates to the solid's frame."""
        if points:
            x, y, z = (
                value - np.float32(origin)
                for value, origin in zip((x, y, z), self.position, strict=True)
            )
        matrix = (self.rotation / self.scale if points else self.rotation).astype(np.float32)
        return tuple(x * matrix[0, i] + y * matrix[1, i] + z * matrix[2, i] for i in range(3))

    def to_world(self, x: Array, y: Array, z: Array) -> tuple[Array, ...]:
        """Convert directions from the solid's frame to scene coordinates."""
        matrix = self.rotation.astype(np.float32)
        return tuple(x * matrix[i, 0] + y * matrix[i, 1] + z * matrix[i, 2] for i in range(3))


@dataclass(frozen=True)
class Light:
    """A key light and a uniform sky.

    Attributes:
        direction: unit vector towards the key light.
        key: linear colour (3,) of the key light.
        sky: linear colour (3,) of the sky.
        hardness: sharpness of shadows; a high value is a small lamp.
    """

    direction: NDArray[np.float64]
    key: Array
    sky: Array
    hardness: float


@dataclass(frozen=True)
class Stage:
    """A scene without its solids.

    Attributes:
        view: the camera.
        light: the lights.
        ground: texture of the plane y = 0.
        ground_colour: mean display colour (3,) of the ground's texture.
        wall: texture of the plane z = ``depth``; None if it is out of view.
        depth: z of the wall.
        spin: rotation angle of the ground's texture.
        zoom: magnification of the ground's texture.
        noise: the noise for the solids' materials.
    """

    view: View
    light: Light
    ground: Array
    ground_colour: Array
    wall: Array | None
    depth: float
    spin: float
    zoom: float
    noise: SolidNoise


def draw_stage(rng: np.random.Generator) -> Stage:
    """Draw the place, the camera and the light."""
    grounds, walls = PLACES[rng.integers(len(PLACES))]
    outdoors = surfaces.bushes in walls
    view = _draw_view(rng, pitch=np.deg2rad(rng.uniform(18, 60)))
    depth = rng.uniform(9, 15) if outdoors else rng.uniform(5, 10)
    ground = grounds[rng.integers(len(grounds))](rng)
    ground_colour = ground[:, ::4, ::4].mean(axis=(1, 2))
    wall = None
    if view.reaches(depth):
        wall = _attuned(walls[rng.integers(len(walls))](rng), ground_colour)
    return Stage(
        view=view,
        light=_draw_light(rng, outdoors),
        ground=ground,
        ground_colour=ground_colour,
        wall=wall,
        depth=depth,
        spin=rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else 0.0,
        zoom=rng.uniform(0.8, 1.3),
        noise=SolidNoise(rng),
    )


def _attuned(wall: Array, ground_colour: Array) -> Array:
    """Blend a wall's colour towards the ground's, as in a real room."""
    ratio = ground_colour / wall[:, ::4, ::4].mean(axis=(1, 2))
    attuned: Array = np.clip(wall * np.sqrt(ratio)[:, None, None], 0, 1)
    return attuned


def _draw_view(rng: np.random.Generator, pitch: float) -> View:
    long, short = int(rng.integers(30, 34)) * 8, int(rng.integers(22, 26)) * 8
    width, height = (long, short) if rng.random() < 0.7 else (short, long)
    distance = 10.0
    # The camera is at negative z and looks at the origin on the ground.
    origin = distance * np.array([0, np.sin(pitch), -np.cos(pitch)])
    roll = rng.normal(0, 0.03)
    right = np.array([1.0, 0, 0])
    up = np.array([0, np.cos(pitch), np.sin(pitch)])
    forward = np.array([0, -np.sin(pitch), np.cos(pitch)])
    cosine, sine = np.cos(roll), np.sin(roll)
    axes = np.stack([cosine * right + sine * up, cosine * up - sine * right, forward])
    return View(width, height, rng.uniform(1.15, 1.5) * long, origin, axes)


def _draw_light(rng: np.random.Generator, outdoors: bool) -> Light:
    side = rng.choice([-1, 1]) * np.deg2rad(rng.uniform(25, 125))
    height = np.deg2rad(rng.uniform(32, 65))
    direction = np.array(
        [np.cos(height) * np.sin(side), np.sin(height), -np.cos(height) * np.cos(side)]
    )
    warmth = rng.uniform(0.0, 0.3)
    key = rng.uniform(1.3, 2.4) * np.array([1, 1 - 0.35 * warmth, 1 - warmth], np.float32)
    blue = rng.uniform(0.0, 0.35) if outdoors else rng.uniform(-0.1, 0.15)
    sky = rng.uniform(0.45, 0.9) * np.array([1 - blue, 1 - 0.4 * blue, 1], np.float32)
    hardness = rng.uniform(8, 20) if outdoors else rng.uniform(4, 10)
    return Light(direction, key.astype(np.float32), sky.astype(np.float32), hardness)
