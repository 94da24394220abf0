"""Render the demo's scenes: light, shadows, reflections and camera imperfections."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from demo_scenes import surfaces
from demo_scenes.colours import display, linear, mix, smoothstep, tint
from demo_scenes.noise import Array
from demo_scenes.scene import Body, Light, Stage
from demo_scenes.tracing import OVERSAMPLING, Hit, Points, coverage, owners


def render(stage: Stage, bodies: list[Body], hits: list[Hit], rng: np.random.Generator) -> Array:
    """Render a scene as display colours from 0 to 1, (3, height, width).

    Args:
        stage: camera, light, ground and wall.
        bodies: the solids.
        hits: the solids' traces.
        rng: draws the sensor noise.
    """
    view = stage.view
    owner = owners(hits, view)
    samples, size = np.float32(OVERSAMPLING**2), view.width * view.height
    shown = coverage(owner, -1, view).ravel() / samples
    light = _background(stage, bodies).reshape(3, -1) * shown
    for number, (body, hit) in enumerate(zip(bodies, hits, strict=True)):
        seen = hit.take(owner[hit.index] == number)
        row, column = np.divmod(seen.index, view.width * OVERSAMPLING)
        pixel = row // OVERSAMPLING * view.width + column // OVERSAMPLING
        # Every second sample, in a checkerboard, and those of pixels that would have none.
        chosen = (row + column) % 2 == 0
        chosen |= np.bincount(pixel[chosen], minlength=size)[pixel] == 0
        colour, pixel = _shade(stage, bodies, body, seen.take(chosen)), pixel[chosen]
        shown = coverage(owner, number, view).ravel() / samples
        share = shown / np.maximum(np.bincount(pixel, minlength=size), 1)
        for channel in range(3):
            total = np.bincount(pixel, weights=colour[channel], minlength=size)
            light[channel] += (total * share).astype(np.float32)
    return _develop(light.reshape(3, view.height, view.width), rng)


def _background(stage: Stage, bodies: list[Body]) -> Array:
    """Render ground and wall in linear light, with shadows and blur; (3, height, width)."""
    view, light = stage.view, stage.light
    rows, columns = np.mgrid[: view.height, : view.width].astype(np.float32) + np.float32(0.5)
    dx, dy, dz = view.rays(columns.ravel(), rows.ravel())
    ox, oy, oz = (np.float32(value) for value in view.origin)
    to_ground = np.where(dy < -1e-4, oy / np.maximum(-dy, 1e-4), 1e4).astype(np.float32)
    to_wall = (np.float32(stage.depth) - oz) / np.maximum(dz, 1e-4)
    on_ground = to_ground < to_wall
    depth = np.where(on_ground, to_ground, to_wall)
    x, y, z = ox + depth * dx, np.maximum(oy + depth * dy, 0), oz + depth * dz

    albedo = np.zeros((3, depth.size), np.float32)
    floor, wall = np.flatnonzero(on_ground), np.flatnonzero(~on_ground)
    cosine, sine = np.float32(np.cos(stage.spin)), np.float32(np.sin(stage.spin))
    u, v = x[floor] * cosine - z[floor] * sine, x[floor] * sine + z[floor] * cosine
    albedo[:, floor] = _look_up(stage.ground, u, v, stage.zoom)
    if stage.wall is not None:
        albedo[:, wall] = _look_up(stage.wall, x[wall], -y[wall], 1.0)

    towards = np.where(on_ground, light.direction[1], -light.direction[2]).astype(np.float32)
    # The corner of ground and wall is slightly darker.
    corner = np.where(on_ground, (stage.depth - z), y)
    ambient = (0.7 + 0.3 * smoothstep(0, 2.5, corner)) * _occlusion((x, y, z), bodies)
    direct = np.maximum(towards, 0.12) * _shadow((x, y, z), bodies, light)
    lit = albedo * (tint(light.key, direct) + tint(light.sky, ambient))
    shape = (view.height, view.width)
    return _blur(lit.reshape(3, *shape), depth.reshape(shape))


def _look_up(texture: Array, u: Array, v: Array, zoom: float) -> Array:
    scale = np.float32(surfaces.SIDE / (surfaces.SPAN * zoom))
    place = np.stack([v * scale, u * scale])
    channels = [
        ndimage.map_coordinates(
            texture[channel], place, order=1, mode="grid-wrap", output=np.float32
        )
        for channel in range(3)
    ]
    return linear(np.clip(np.stack(channels), 0, 1))


def _blur(image: Array, depth: Array) -> Array:
    """Blur the background by its distance behind the middle of the scene."""
    far = smoothstep(10.5, 17.0, depth)
    if not far.any():
        return image
    soft = ndimage.gaussian_filter(image, (0, 1.1, 1.1), mode="nearest")
    softer = ndimage.gaussian_filter(image, (0, 2.8, 2.8), mode="nearest")
    slightly = image + (soft - image) * np.minimum(2 * far, 1)
    blurred: Array = slightly + (softer - slightly) * np.maximum(2 * far - 1, 0)
    return blurred


def _shadow(points: Points, bodies: list[Body], light: Light) -> Array:
    """Return the fraction of the key light that reaches points: soft shadows (Quilez 2010)."""
    lit = np.ones(points[0].shape, np.float32)
    towards = tuple(np.full(1, value, np.float32) for value in light.direction)
    hardness = np.float32(light.hardness)
    for body in bodies:
        dx, dy, dz = (float(value[0]) for value in body.to_local(*towards, points=False))
        x, y, z = body.to_local(*points, points=True)
        up = y - body.shape.middle
        along = -(x * dx + up * dy + z * dz)
        radius = body.shape.radius * (1 + 1.5 / hardness)
        half = np.sqrt(np.maximum(radius**2 - x * x - up * up - z * z + along * along, 0))
        near = np.flatnonzero((half > 0) & (along + half > 0))
        travelled = np.maximum((along - half)[near], np.float32(0.03))
        end, clear = (along + half)[near], np.ones(near.shape, np.float32)
        x, y, z = x[near], y[near], z[near]
        for _ in range(4):
            for _ in range(4):
                gap = body.shape.distance(
                    x + travelled * dx, y + travelled * dy, z + travelled * dz
                )
                clear = np.minimum(clear, hardness * gap / travelled)
                # A minimum step, so that rays along a surface advance.
                travelled = travelled + np.clip(gap, 0.04 + 0.1 * travelled, 0.5)
            clear = np.maximum(clear, 0)
            lit[near] = np.minimum(lit[near], clear)
            going = np.flatnonzero((travelled < end) & (clear > 0))
            near, clear, travelled, end = near[going], clear[going], travelled[going], end[going]
            x, y, z = x[going], y[going], z[going]
    return smoothstep(0, 1, lit)


def _occlusion(points: Points, bodies: list[Body]) -> Array:
    """Return the ambient light at points of the ground or wall: darker close to the bodies."""
    sky = np.ones(points[0].shape, np.float32)
    for body in bodies:
        x, y, z = body.to_local(*points, points=True)
        near = np.flatnonzero(
            x * x + (y - body.shape.middle) ** 2 + z * z < (2 * body.shape.radius) ** 2
        )
        gap = body.shape.distance(x[near], y[near], z[near])
        sky[near] *= 1 - 0.65 * np.exp(-np.maximum(gap, 0) * np.float32(3.5))
    return sky


def _normals(body: Body, local: Points) -> Points:
    """Return unit normals in the body's frame, by differences at the corners of a tetrahedron."""
    x, y, z = local
    step = np.float32(4e-3)
    gradient = [np.zeros(x.shape, np.float32) for _ in range(3)]
    for signs in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        offset = [step * sign for sign in signs]
        gap = body.shape.distance(x + offset[0], y + offset[1], z + offset[2])
        for axis, sign in enumerate(signs):
            gradient[axis] += sign * gap
    return _unit(gradient)


def _unit(vector: Sequence[Array]) -> Points:
    norm = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2) + np.float32(1e-9)
    return tuple(component / norm for component in vector)


def _bumpy(stage: Stage, body: Body, local: Points, normal: Points) -> Points:
    material = body.material
    if not material.bump:
        return normal
    scale, step = np.float32(material.bump_scale), np.float32(0.25)
    places = [part * scale for part in local]
    here = stage.noise(*places)
    tilted = []
    for axis in range(3):
        moved = [part + step if i == axis else part for i, part in enumerate(places)]
        slope = (stage.noise(*moved) - here) / step
        tilted.append(normal[axis] - np.float32(material.bump) * slope)
    return _unit(tilted)


def _shade(stage: Stage, bodies: list[Body], body: Body, hit: Hit) -> Array:
    """Return the linear light (3, n) from a body's samples to the camera."""
    light, material = stage.light, body.material
    smooth = _normals(body, hit.local)
    x, y, z = body.to_world(*(part * np.float32(body.scale) for part in hit.local))
    place = tuple(part + np.float32(o) for part, o in zip((x, y, z), body.position, strict=True))
    nx, ny, nz = body.to_world(*_bumpy(stage, body, hit.local, smooth))
    # Shadow rays start above the surface, so that it does not shadow itself.
    lift = np.float32(0.03 * body.scale)
    off = body.to_world(*(part * lift for part in smooth))
    lifted = tuple(part + shift for part, shift in zip(place, off, strict=True))
    visible = _shadow(lifted, bodies, light)

    lx, ly, lz = (np.float32(value) for value in light.direction)
    facing = nx * lx + ny * ly + nz * lz
    direct = np.clip(facing, 0, 1) * visible
    others = [other for other in bodies if other is not body]
    open_sky = _occlusion(place, others) * (0.55 + 0.45 * smoothstep(0, 0.5 * body.scale, place[1]))
    up = (ny + 1) / 2
    bounce = linear(stage.ground_colour) * (0.35 * light.key + 0.4 * light.sky)
    ambient = mix(bounce, light.sky, up)
    diffuse = tint(light.key, direct) + open_sky * ambient
    colour = linear(np.clip(material.paint(*hit.local), 0, 1)) * diffuse
    shaded: Array = colour + _gloss(stage, body, (nx, ny, nz), place, visible, open_sky)
    return shaded


def _gloss(
    stage: Stage, body: Body, normal: Points, place: Points, visible: Array, open_sky: Array
) -> Array:
    """Return the key light's highlight and the sky's reflection, (3, n)."""
    light, material = stage.light, body.material
    away = _unit([part - np.float32(o) for part, o in zip(place, stage.view.origin, strict=True)])
    inward = sum(n * a for n, a in zip(normal, away, strict=True))
    mirrored = tuple(a - 2 * inward * n for n, a in zip(normal, away, strict=True))
    aligned = sum(m * np.float32(d) for m, d in zip(mirrored, light.direction, strict=True))
    shine = np.clip(aligned, 0, 1) ** np.float32(material.sharpness) * visible
    fresnel = 0.04 + 0.6 * np.clip(1 + inward, 0, 1) ** 5
    sky = fresnel * smoothstep(-0.1, 0.7, mirrored[1]) * open_sky
    gloss = np.float32(material.gloss)
    return gloss * (tint(light.key, 0.8 * shine) + tint(light.sky, sky))


def _develop(light: Array, rng: np.random.Generator) -> Array:
    """Apply exposure, tone curve, vignette and sensor noise."""
    _, height, width = light.shape
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    vignette = 1 - rng.uniform(0.05, 0.3) * (down * down + across * across) / 2
    bright = np.percentile(light.mean(axis=0), 80)
    exposure = rng.uniform(0.65, 1.1) / max(float(bright), 1e-3)
    exposed = 1 - np.exp(-np.float32(exposure) * light * vignette)
    picture = display(np.maximum(exposed, 0))
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    noisy: Array = np.clip(picture + np.float32(rng.uniform(0.004, 0.018)) * noise, 0, 1)
    return noisy
