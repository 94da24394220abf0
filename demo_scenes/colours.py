"""Colours of the demo: conversions and blends.

One colour is an array (3,); the colours of many points or pixels are planes, (3, ...).
"""

import numpy as np
from numpy.typing import ArrayLike

from demo_scenes.noise import Array

_TO_CONES = np.array(
    [
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    ]
)
_TO_OKLAB = np.array(
    [
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    ]
)


def hsv(hue: ArrayLike, saturation: ArrayLike, value: ArrayLike) -> Array:
    """Convert HSV to display colours in [0, 1], (3,) or (n, 3) for n hues; hue is in turns."""
    turn = np.asarray(hue, np.float32)[..., None] * 6 + np.array([5, 3, 1], np.float32)
    part = np.clip(np.minimum(turn % 6, 4 - turn % 6), 0, 1)
    grey = 1 - np.clip(np.asarray(saturation, np.float32), 0, 1)[..., None] * part
    colour: Array = np.clip(np.asarray(value, np.float32), 0, 1)[..., None] * grey
    return colour


def linear(display: Array) -> Array:
    """Convert display values in [0, 1] to linear light, with gamma 2 (sRGB is close to it)."""
    return display * display


def display(light: Array) -> Array:
    """Convert linear light in [0, 1] to display values."""
    return np.sqrt(light)


def difference(a: Array, b: Array) -> float:
    """Return the distance of two display colours in OKLab (Ottosson 2020)."""
    lab = [_TO_OKLAB @ np.cbrt(_TO_CONES @ linear(colour)) for colour in (a, b)]
    return float(np.linalg.norm(lab[0] - lab[1]))


def mix(a: Array, b: Array, weight: Array) -> Array:
    """Blend colours or planes a and b with weights (...) from 0 (a) to 1 (b); returns planes."""
    start = _planes(a, weight)
    mixed: Array = start + (_planes(b, weight) - start) * weight
    return mixed


def tint(colour: Array, brightness: Array) -> Array:
    """Scale a colour or planes by brightness factors (...); returns planes."""
    tinted: Array = _planes(colour, brightness) * brightness
    return tinted


def _planes(colour: Array, like: Array) -> Array:
    return colour.reshape(3, *[1] * like.ndim) if colour.ndim == 1 else colour


def smoothstep(low: float, high: float, values: Array) -> Array:
    """Interpolate smoothly (cubic) from 0 at ``low`` to 1 at ``high``."""
    part = np.clip((values - low) / (high - low), 0, 1)
    risen: Array = part * part * (3 - 2 * part)
    return risen
