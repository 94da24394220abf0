"""Trying settings on an image; the features of each backbone are extracted once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from cuvler.discovery import extract_features, masks_from
from cuvler.eigenvectors.backbones import BackboneSpec
from cuvler.eigenvectors.features import Backbone
from cuvler.pseudo_masks import PseudoMask
from cuvler.tuning.grid import Row, Setting
from cuvler.uniform import is_uniform


@dataclass(frozen=True)
class Trial:
    """What a setting finds in an image.

    Attributes:
        masks: best first.
        seconds: taken for the graph and the masks, without the features.
    """

    masks: list[PseudoMask]
    seconds: float


@dataclass(frozen=True)
class ImageTrials:
    """What all settings find in an image.

    Attributes:
        trials: by setting.
        seconds: taken for the features, by backbone and size.
        is_uniform: the image has one colour but for noise, in which nothing is looked for.
    """

    trials: dict[Setting, Trial]
    seconds: dict[BackboneSpec, float]
    is_uniform: bool


def try_settings(
    image: Image.Image,
    rows: Sequence[Row],
    backbones: Mapping[BackboneSpec, Backbone],
    *,
    tried: Callable[[], None] = lambda: None,
) -> ImageTrials:
    """Find the objects in an RGB image with each setting.

    Args:
        image: RGB.
        rows: the settings.
        backbones: loaded, by their entries.
        tried: called after each setting, for a progress bar.
    """
    settings = [setting for row in rows for setting in row.settings]
    if is_uniform(image):
        return ImageTrials({setting: Trial([], 0.0) for setting in settings}, {}, True)
    features, seconds, trials = {}, {}, {}
    for spec, backbone in backbones.items():
        start = time.perf_counter()
        features[spec] = extract_features(image, backbone)
        seconds[spec] = time.perf_counter() - start
    _warm_up(image, rows, features)
    for setting in settings:
        used = {spec: features[spec] for spec in setting.specs}
        start = time.perf_counter()
        found = masks_from(image, setting.method, used, tau=setting.tau)
        trials[setting] = Trial(found.masks, time.perf_counter() - start)
        tried()
    return ImageTrials(trials, seconds, False)


def _warm_up(
    image: Image.Image, rows: Sequence[Row], features: Mapping[BackboneSpec, Tensor]
) -> None:
    """Call each method on a thumbnail: the first call loads compiled code, which takes time."""
    small = image.resize((64, 64))
    for setting in {row.settings[0].method.name: row.settings[0] for row in rows}.values():
        used = {spec: features[spec] for spec in setting.specs}
        masks_from(small, setting.method, used, tau=setting.tau)
