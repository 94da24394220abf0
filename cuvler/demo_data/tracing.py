"""Finding what each ray of the camera meets: sphere tracing, and the masks it gives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvler.demo_data.noise import Array
from cuvler.demo_data.scene import Body, View

Index = NDArray[np.intp]
Points = tuple[Array, ...]

OVERSAMPLING = 2
_ROUNDS, _STEPS = 10, 5
_CLOSE = np.float32(2e-3)


@dataclass(frozen=True)
class Hit:
    """Where a body would be seen if it were alone.

    Attributes:
        index: samples, counted row by row on the oversampled grid (n,).
        depth: distance from the camera (n,).
        local: the surface's points in the body's own frame, three arrays (n,).
    """

    index: Index
    depth: Array
    local: Points

    def take(self, chosen: Index | NDArray[np.bool_]) -> "Hit":
        """Keep some samples."""
        return Hit(
            self.index[chosen], self.depth[chosen], tuple(part[chosen] for part in self.local)
        )


def trace(body: Body, view: View) -> Hit:
    """Find the samples whose rays meet a body (sphere tracing, Hart 1996)."""
    index, directions = _rays_near(body, view)
    local = body.to_local(*directions, points=False)
    start = body.rotation.T @ (view.origin - body.position) / body.scale
    ox, oy, oz = (np.float32(value) for value in start)
    # The part of each ray inside the bounding sphere.
    from_middle = oy - np.float32(body.shape.middle)
    along = local[0] * ox + local[1] * from_middle + local[2] * oz
    reach = body.shape.radius**2 - (ox**2 + from_middle**2 + oz**2 - along * along)
    alive = np.flatnonzero(reach > 0)
    half = np.sqrt(reach[alive])
    travelled, end = -along[alive] - half, -along[alive] + half
    dx, dy, dz = (part[alive] for part in local)
    found: list[Index] = []
    depths: list[Array] = []
    for _ in range(_ROUNDS):
        # A ray that has arrived stands still, so that asking now and then is enough.
        for _ in range(_STEPS):
            x, y, z = ox + travelled * dx, oy + travelled * dy, oz + travelled * dz
            gap = body.shape.distance(x, y, z)
            travelled = travelled + gap
        hit = gap < _CLOSE
        found.append(alive[hit])
        depths.append(travelled[hit])
        going = np.flatnonzero(~hit & (travelled < end))
        if not going.size:
            break
        travelled, alive, end = travelled[going], alive[going], end[going]
        dx, dy, dz = dx[going], dy[going], dz[going]
    rays, depth = np.concatenate(found), np.concatenate(depths)
    points = tuple(
        origin + depth * part[rays] for origin, part in zip((ox, oy, oz), local, strict=True)
    )
    return Hit(index[rays], depth * np.float32(body.scale), points)


def _rays_near(body: Body, view: View) -> tuple[Index, Points]:
    column, row, depth = view.project(body.centre())
    reach = 1.15 * view.focal * body.scale * body.shape.radius / depth
    fine_width, fine_height = view.width * OVERSAMPLING, view.height * OVERSAMPLING
    left, right = (np.array([column - reach, column + reach]) * OVERSAMPLING).astype(int)
    top, bottom = (np.array([row - reach, row + reach]) * OVERSAMPLING).astype(int)
    columns = np.arange(max(left, 0), min(right + 1, fine_width))
    rows = np.arange(max(top, 0), min(bottom + 1, fine_height))
    index = (rows[:, None] * fine_width + columns[None, :]).ravel()
    across = np.tile(((columns + 0.5) / OVERSAMPLING).astype(np.float32), rows.size)
    down = np.repeat(((rows + 0.5) / OVERSAMPLING).astype(np.float32), columns.size)
    return index, view.rays(across, down)


def owners(hits: list[Hit], view: View) -> NDArray[np.int8]:
    """Tell, for every sample, which body is seen there: its place in ``hits``, or -1."""
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
    """Give each pixel to the body that most of its samples show, (count, height, width).

    Where the background has as many samples as a body, or more, the pixel is background's;
    of two bodies with as many, the one placed first has it.
    """
    most = coverage(owner, -1, view)
    winner = np.full(most.shape, -1, np.int8)
    for number in range(count):
        votes = coverage(owner, number, view)
        ahead = votes > most
        most[ahead] = votes[ahead]
        winner[ahead] = number
    return np.stack([winner == number for number in range(count)])
