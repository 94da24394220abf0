"""The demo's scenes: camera, light, what lies behind, and solids standing before it."""

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
        """Unit directions of the rays through image positions in pixels, each (n,)."""
        right = (columns - self.width / 2) / self.focal
        up = (self.height / 2 - rows) / self.focal
        norm = 1 / np.sqrt(right * right + up * up + 1)
        matrix = self.axes.astype(np.float32)
        x, y, z = (
            (right * matrix[0, i] + up * matrix[1, i] + matrix[2, i]) * norm for i in range(3)
        )
        return x, y, z

    def ray(self, column: float, row: float) -> NDArray[np.float64]:
        """Unit direction of the ray through one image position in pixels, (3,)."""
        places = np.array([column], np.float32), np.array([row], np.float32)
        return np.concatenate(self.rays(*places)).astype(np.float64)

    def reaches(self, depth: float) -> bool:
        """Whether the plane z = ``depth`` is seen above the ground."""
        corners = np.array([0, self.width], np.float32), np.zeros(2, np.float32)
        _, down, ahead = self.rays(*corners)
        return bool((self.origin[1] * ahead > -down * (depth - self.origin[2])).any())

    def project(self, point: NDArray[np.float64]) -> tuple[float, float, float]:
        """Column and row of a point in pixels, and its depth along the view."""
        right, up, depth = self.axes @ (point - self.origin)
        column = self.width / 2 + self.focal * right / depth
        return float(column), float(self.height / 2 - self.focal * up / depth), float(depth)


@dataclass(frozen=True)
class Body:
    """A solid put into the scene.

    Attributes:
        category: name of its kind.
        shape: its form.
        material: its surface.
        rotation: turns vectors of its own frame into the scene's, (3, 3).
        position: its own frame's origin in the scene (3,).
        scale: units of the scene in one of its own.
    """

    category: str
    shape: Shape
    material: Material
    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    scale: float

    def centre(self) -> NDArray[np.float64]:
        """Centre of the bounding sphere in the scene."""
        offset = self.rotation @ np.array([0, self.shape.middle, 0])
        centre: NDArray[np.float64] = self.position + self.scale * offset
        return centre

    def to_local(self, x: Array, y: Array, z: Array, *, points: bool) -> tuple[Array, ...]:
        """Express points, or directions, of the scene in the solid's own frame."""
        if points:
            x, y, z = (
                value - np.float32(origin)
                for value, origin in zip((x, y, z), self.position, strict=True)
            )
        matrix = (self.rotation / self.scale if points else self.rotation).astype(np.float32)
        return tuple(x * matrix[0, i] + y * matrix[1, i] + z * matrix[2, i] for i in range(3))

    def to_world(self, x: Array, y: Array, z: Array) -> tuple[Array, ...]:
        """Turn directions of the solid's own frame into the scene's."""
        matrix = self.rotation.astype(np.float32)
        return tuple(x * matrix[i, 0] + y * matrix[i, 1] + z * matrix[i, 2] for i in range(3))


@dataclass(frozen=True)
class Light:
    """A key light and an even sky.

    Attributes:
        direction: unit vector towards the key light.
        key: its linear colour (3,).
        sky: the sky's linear colour (3,).
        hardness: how sharp shadows are; high is a small lamp.
    """

    direction: NDArray[np.float64]
    key: Array
    sky: Array
    hardness: float


@dataclass(frozen=True)
class Stage:
    """Everything but the solids.

    Attributes:
        view: the camera.
        light: what shines.
        ground: texture of the plane y = 0.
        ground_colour: the texture's mean, a display colour (3,).
        wall: texture of the plane z = ``depth``; None where it is out of view.
        depth: where the wall stands.
        spin: angle by which the ground's texture is turned.
        zoom: how much the ground's texture is enlarged.
        noise: what the solids' materials are carved from.
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
    """Choose the place, the camera and the light."""
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
    """Bring a wall's colour nearer to the ground's: rooms are furnished that way."""
    ratio = ground_colour / wall[:, ::4, ::4].mean(axis=(1, 2))
    attuned: Array = np.clip(wall * np.sqrt(ratio)[:, None, None], 0, 1)
    return attuned


def _draw_view(rng: np.random.Generator, pitch: float) -> View:
    long, short = int(rng.integers(30, 34)) * 8, int(rng.integers(22, 26)) * 8
    width, height = (long, short) if rng.random() < 0.7 else (short, long)
    distance = 10.0
    # The camera looks at the origin of the ground, from the side of negative z.
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
