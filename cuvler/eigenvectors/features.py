"""Loading backbones: functions from images to one feature vector per patch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image
from torch import Tensor

from cuvler.devices import find_device, has_half_precision
from cuvler.eigenvectors.backbones import BackboneSpec
from cuvler.eigenvectors.pixels import colour_features, pixel_features
from cuvler.errors import ConfigError
from cuvler.files import StrPath

if TYPE_CHECKING:
    from cuvler.eigenvectors.vit import Precision


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone: a CPU function per image and a device function per batch.

    Attributes:
        spec: its entry in the table of backbones.
        device: where ``features`` runs.
        prepare: RGB image -> tensor, to be stacked into batches; runs in loader processes.
        features: (b, ...) prepared images on the device -> (b, n, d) float32 features, patches in
            row-major order.
        weights_sha256: SHA-256 of the weight file; None without one.
        precision: of a ViT's forward pass.
    """

    spec: BackboneSpec
    device: torch.device
    prepare: Callable[[Image.Image], Tensor]
    features: Callable[[Tensor], Tensor]
    weights_sha256: str | None
    precision: str = "float32"


def load_backbone(
    spec: BackboneSpec,
    *,
    weights: StrPath | None = None,
    device: str = "cpu",
    precision: 'Literal["auto"] | Precision' = "auto",
) -> Backbone:
    """Load a backbone.

    Args:
        spec: its entry in the table of backbones.
        weights: a ViT's weights, ``.safetensors`` or ``.pth``; None for pixel backbones.
        device: see :func:`cuvler.devices.find_device`.
        precision: of a ViT; see :class:`cuvler.eigenvectors.vit.ViTFeatures`. ``auto`` is float16
            on GPUs that are faster with it, and float32 elsewhere.

    Raises:
        ConfigError: weights are given to a pixel backbone or missing for a ViT, or the device does
            not exist.
        DataError: the weights cannot be read, or do not fit the model.
    """
    where = find_device(device)
    if spec.timm is None:
        if weights is not None:
            raise ConfigError(f"backbone {spec.name!r} is a pixel backbone and takes no weights")
        descriptors = {"pixels": pixel_features, "colours": colour_features}[spec.feature]
        prepare = partial(descriptors, size=spec.size, patch=spec.patch)
        return Backbone(spec, where, prepare, lambda prepared: prepared, None)
    if weights is None:
        raise ConfigError(
            f"backbone {spec.name!r} needs weights; `cuvler weights` fetches them",
            parameter="weights",
        )
    # timm is slow to import and not needed for pixel backbones.
    from cuvler.download.digests import file_sha256, recorded_sha256
    from cuvler.eigenvectors.vit import prepare_image, vit_features

    if precision == "auto":
        precision = "float16" if has_half_precision(where) else "float32"
    features = vit_features(spec, weights, precision).to(where)
    prepare = partial(prepare_image, size=spec.size)
    # Reading the weights has checked the recorded digest: the file need not be hashed again.
    digest = recorded_sha256(weights) or file_sha256(weights)
    return Backbone(spec, where, prepare, features, digest, precision)
