"""Sphere tracing of camera rays, and the masks of the bodies they hit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_scenes.noise import Array
from demo_scenes.scene import Body, View

Index = NDArray[np.intp]
Points = tuple[Array, ...]

OVERSAMPLING = 2
# Samples are traced in square blocks of this side; pictures' sides are multiples of it.
_BLOCK = 8
_CONE_STEPS = 16
# Rays that have neither arrived nor left are looked for after every _STEPS steps.
_ROUNDS, _STEPS = 8, 4
# A ray has arrived when it is this close, in the body's own units.
_CLOSE = np.float32(2e-3)


@dataclass(frozen=True)
class Hit:
    """The samples in which a body is visible without the others.

    Attributes:
        index: samples, counted row by row on the oversampled grid (n,).
        depth: distance from the camera (n,).
        local: the surface's points in the body's own frame, three arrays (n,).
    """

    index: Index
    depth: Array
    local: Points

    def take(self, chosen: Index | NDArray[np.bool_]) -> "Hit":
        """Return the chosen samples."""
        return Hit(
            self.index[chosen], self.depth[chosen], tuple(part[chosen] for part in self.local)
        )


def trace(body: Body, view: View) -> Hit:
    """Find the samples with rays that hit a body (sphere tracing, Hart 1996).

    Rays are traced in the body's frame. They start where the cone of their block of samples
    comes near the body, which saves most of the steps.
    """
    columns, rows = _window(body, view)
    start = body.rotation.T @ (view.origin - body.position) / body.scale
    ox, oy, oz = (np.float32(value) for value in start)
    index, distance, (dx, dy, dz) = _near_rays(body, view, columns, rows, (ox, oy, oz))
    end = np.float32(np.linalg.norm(start - [0, body.shape.middle, 0]) + body.shape.radius)
    found: list[Hit] = []
    for _ in range(_ROUNDS):
        # A ray that has hit does not move, so an occasional check is enough.
        for _ in range(_STEPS):
            x, y, z = ox + distance * dx, oy + distance * dy, oz + distance * dz
            gap = body.shape.distance(x, y, z)
            distance = distance + gap
        hit = np.flatnonzero(gap < _CLOSE)
        found.append(Hit(index, distance * np.float32(body.scale), (x, y, z)).take(hit))
        going = np.flatnonzero((gap >= _CLOSE) & (distance < end))
        if not going.size:
            break
        index, distance = index[going], distance[going]
        dx, dy, dz = dx[going], dy[going], dz[going]
    parts = zip(*(hit.local for hit in found), strict=True)
    return Hit(
        np.concatenate([hit.index for hit in found]),
        np.concatenate([hit.depth for hit in found]),
        tuple(np.concatenate(part) for part in parts),
    )


def _window(body: Body, view: View) -> tuple[Index, Index]:
    """Return the columns and rows of the sample blocks in which a body can be visible."""
    column, row, depth = view.project(body.centre())
    reach = 1.15 * view.focal * body.scale * body.shape.radius / depth
    sides = []
    for middle, side in ((column, view.width), (row, view.height)):
        first = int(np.floor((middle - reach) * OVERSAMPLING / _BLOCK))
        last = int(np.floor((middle + reach) * OVERSAMPLING / _BLOCK))
        sides.append(np.arange(max(first, 0), min(last + 1, side * OVERSAMPLING // _BLOCK)))
    return sides[0], sides[1]


def _near_rays(
    body: Body, view: View, columns: Index, rows: Index, origin: tuple[np.float32, ...]
) -> tuple[Index, Array, Points]:
    """Return the samples of blocks with cones that hit a body: index, safe start, directions."""
    pitch = _BLOCK / OVERSAMPLING
    across = np.tile((columns + 0.5).astype(np.float32) * pitch, rows.size)
    down = np.repeat((rows + 0.5).astype(np.float32) * pitch, columns.size)
    dx, dy, dz = body.to_local(*view.rays(across, down), points=False)
    ox, oy, oz = origin
    # Half a block's diagonal, as seen from the camera.
    spread = np.float32(0.75 * pitch / view.focal)
    first = np.hypot(np.hypot(ox, oy - np.float32(body.shape.middle)), oz) - body.shape.radius
    distance = np.full(across.shape, max(first, 0), np.float32)
    for _ in range(_CONE_STEPS):
        gap = body.shape.distance(ox + distance * dx, oy + distance * dy, oz + distance * dz)
        distance = distance + np.maximum(gap - spread * distance, 0)
    block = np.flatnonzero(distance < first + 2 * body.shape.radius)
    step = np.arange(_BLOCK)
    shape = (block.size, _BLOCK, _BLOCK)
    fine_rows = (rows[block // columns.size] * _BLOCK)[:, None, None] + step[:, None]
    fine_columns = (columns[block % columns.size] * _BLOCK)[:, None, None] + step
    index = (fine_rows * (view.width * OVERSAMPLING) + fine_columns).ravel()
    rays = view.rays(
        ((np.broadcast_to(fine_columns, shape).ravel() + 0.5) / OVERSAMPLING).astype(np.float32),
        ((np.broadcast_to(fine_rows, shape).ravel() + 0.5) / OVERSAMPLING).astype(np.float32),
    )
    return index, np.repeat(distance[block], _BLOCK**2), body.to_local(*rays, points=False)


def owners(hits: list[Hit], view: View) -> NDArray[np.int8]:
    """Return the index in ``hits`` of the body visible in each sample, or -1."""
    samples = view.width * view.height * OVERSAMPLING**2
    nearest, owner = np.full(samples, np.inf, np.float32), np.full(samples, -1, np.int8)
    for number, hit in enumerate(hits):
        front = hit.depth < nearest[hit.index]
        closer = hit.index[front]
        nearest[closer] = hit.depth[front]
        owner[closer] = number
    return owner


def coverage(owner: NDArray[np.int8], number: int, view: View) -> NDArray[np.uint8]:
    """Count the samples of each pixel that show a body (-1: none), (height, width)."""
    grid = (owner == number).reshape(view.height, OVERSAMPLING, view.width, OVERSAMPLING)
    count = np.zeros((view.height, view.width), np.uint8)
    for row in range(OVERSAMPLING):
        for column in range(OVERSAMPLING):
            count += grid[:, row, :, column]
    return count


def masks(owner: NDArray[np.int8], count: int, view: View) -> NDArray[np.bool_]:
    """Assign each pixel to the body in most of its samples; returns (count, height, width).

    On a tie with the background the pixel is background; on a tie of two bodies it belongs to
    the one placed first.
    """
    most = coverage(owner, -1, view)
    winner = np.full(most.shape, -1, np.int8)
    for number in range(count):
        votes = coverage(owner, number, view)
        ahead = votes > most
        most[ahead] = votes[ahead]
        winner[ahead] = number
    return np.stack([winner == number for number in range(count)])
