"""Composition of the demo's scenes: the number, sizes and positions of solids."""

import numpy as np
from numpy.typing import NDArray

from demo_scenes.catalogue import Solid, draw_solid
from demo_scenes.scene import Body, Stage, View, draw_stage
from demo_scenes.tracing import Hit, masks, owners, trace

SMALLEST = 0.01
LEAST_VISIBLE = 0.4


def compose(
    rng: np.random.Generator,
) -> tuple[Stage, list[Body], list[Hit], NDArray[np.bool_]]:
    """Draw a scene of one to five solids.

    Returns:
        The stage, the solids, their traces, and the masks of their visible parts
        (solids, height, width), which do not overlap. Each mask covers at least ``SMALLEST`` of
        the image and at least ``LEAST_VISIBLE`` of the solid without occlusion.
    """
    while True:
        stage = draw_stage(rng)
        bodies: list[Body] = []
        hits: list[Hit] = []
        visible = np.zeros((0, stage.view.height, stage.view.width), bool)
        for part in _draw_parts(rng):
            for _ in range(4):
                body = _draw_body(rng, stage, bodies, part)
                if body is None:
                    continue
                tried = [*hits, trace(body, stage.view)]
                seen = _visible(tried, stage)
                if seen is not None:
                    bodies, hits, visible = [*bodies, body], tried, seen
                    break
        if bodies:
            return stage, bodies, hits, visible


def _visible(hits: list[Hit], stage: Stage) -> NDArray[np.bool_] | None:
    """Return the masks; None if one is too small or occluded too much."""
    owner = owners(hits, stage.view)
    samples = np.bincount(owner + 1, minlength=len(hits) + 1)[1:]
    alone = np.array([hit.index.size for hit in hits])
    if (samples < LEAST_VISIBLE * alone).any():
        return None
    visible = masks(owner, len(hits), stage.view)
    small = visible.mean(axis=(1, 2)) < SMALLEST
    return None if small.any() else visible


def _draw_parts(rng: np.random.Generator) -> list[float]:
    """Draw the fraction of the image that each solid should cover, largest first."""
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.12, 0.28, 0.3, 0.2, 0.1]))
    parts = np.exp(rng.uniform(np.log(0.05), np.log(0.24), count))
    parts *= min(1, 0.55 / parts.sum())
    if count > 2 and rng.random() < 0.5:
        parts[-1] = rng.uniform(0.02, 0.035)
    return sorted((float(part) for part in parts), reverse=True)


def _draw_body(
    rng: np.random.Generator, stage: Stage, others: list[Body], part: float
) -> Body | None:
    """Draw a solid and a place where it does not collide with the others; None if there is none."""
    solid = draw_solid(rng, stage.noise, stage.ground_colour)
    for _ in range(20):
        body = _place(rng, stage, others, solid, part)
        if not _collides(body, others):
            return body
    return None


def _collides(body: Body, others: list[Body]) -> bool:
    """Whether a body's footprint, a disc on the ground, overlaps another's."""
    return any(
        np.hypot(*(body.centre() - other.centre())[[0, 2]])
        < 0.97 * (body.scale * body.shape.foot + other.scale * other.shape.foot)
        for other in others
    )


def _place(
    rng: np.random.Generator, stage: Stage, others: list[Body], solid: Solid, part: float
) -> Body:
    """Place a solid on the ground so that it covers about ``part`` of the image."""
    category, shape, material = solid
    view = stage.view
    reach = float(np.sqrt(part * view.width * view.height / (np.pi * shape.fill)))
    direction = view.ray(*_aim(rng, view, others, reach))
    lies = shape.axis is not None and rng.random() < 0.25
    lift = shape.axis if lies and shape.axis is not None else shape.middle
    # For a given size in the image, the scale is proportional to the distance along the ray. At the
    # right distance, the ray's height over the ground equals the centre's height at that scale.
    growth = reach / (view.focal * shape.radius) * float(view.axes[2] @ direction)
    distance = view.origin[1] / (lift * growth - direction[1])
    before_wall = 0.9 * (stage.depth - view.origin[2]) / max(direction[2], 1e-3)
    distance = min(distance, before_wall) if distance > 0 else before_wall
    scale = growth * distance
    rotation = _rotation(rng, category, lies)
    base = view.origin + distance * direction
    base[1] = 0
    if lies:
        base += scale * (np.array([0, lift, 0]) - shape.middle * rotation[:, 1])
    return Body(category, shape, material, rotation, base, scale)


def _aim(
    rng: np.random.Generator, view: View, others: list[Body], reach: float
) -> tuple[float, float]:
    """Draw the image position of a solid's centre; ``reach`` is its radius in pixels."""
    if others and rng.random() < 0.5:
        # Next to another solid, so that they overlap in the image or nearly so.
        neighbour = others[rng.integers(len(others))]
        column, row, depth = view.project(neighbour.centre())
        apart = reach + view.focal * neighbour.scale * neighbour.shape.radius / depth
        angle = rng.uniform(0, 2 * np.pi)
        column += apart * rng.uniform(0.65, 1.1) * np.cos(angle)
        row += apart * rng.uniform(0.3, 0.7) * np.sin(angle)
    else:
        column = rng.uniform(0.12, 0.88) * view.width
        row = rng.uniform(0.25, 0.85) * view.height
    # Keep most of it inside the image.
    column = np.clip(column, min(0.8 * reach, view.width / 2), view.width - 0.7 * reach)
    row = np.clip(row, min(0.9 * reach, view.height / 2), view.height - 0.7 * reach)
    return float(column), float(row)


def _rotation(rng: np.random.Generator, category: str, lies: bool) -> NDArray[np.float64]:
    yaw = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    if lies:
        lying: NDArray[np.float64] = turn @ np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        return lying
    if category == "ball":
        frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        spun: NDArray[np.float64] = frame * np.sign(np.linalg.det(frame))
        return spun
    return turn
