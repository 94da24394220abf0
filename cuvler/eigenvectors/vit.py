"""timm's vision transformers as backbones."""

import contextlib
import io
import sys
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from cuvler.devices import without_tf32
from cuvler.eigenvectors.backbones import RESAMPLING, BackboneSpec
from cuvler.eigenvectors.projections import ProjectionBlock
from cuvler.eigenvectors.timm_models import blocks_of, find_timm_model
from cuvler.eigenvectors.weights import read_state
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath

Precision = Literal["float32", "float16"]


def prepare_image(image: Image.Image, size: int) -> Tensor:
    """Resize an RGB image to (3, size, size) uint8 with Lanczos resampling."""
    resized = image.resize((size, size), RESAMPLING)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def create_vit(spec: BackboneSpec) -> nn.Module:
    """Create a backbone's model with random weights.

    Raises:
        ConfigError: timm has no such model, it is not a vision transformer with one grid of
            patches, its patch size differs from the table's, or it has no such layer.
    """
    assert spec.timm is not None
    try:
        found = find_timm_model(spec.timm)
        found.index(spec.layer)
        model: nn.Module = found.create(spec.size)
    except ConfigError as error:
        raise ConfigError(f"backbone {spec.name!r}: {error}") from error
    if found.patch != spec.patch:
        raise ConfigError(
            f"backbone {spec.name!r}: {spec.timm!r} has patches of {found.patch} pixels, "
            f"not {spec.patch}"
        )
    return model


def load_vit(spec: BackboneSpec, weights: StrPath) -> nn.Module:
    """Create a backbone's model and load its weights from a local file.

    The file has timm's names of parameters, or those with which the model was published.

    Raises:
        ConfigError: see :func:`create_vit`.
        DataError: the file cannot be read, or does not fit the model.
    """
    model = create_vit(spec)
    state = read_state(weights)
    _require_biases(weights, state, model, spec)
    # timm converts the published names of a model in the module of its class.
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some of timm's converters print
            loaded = model.load_state_dict(
                convert(state, model) if convert else state, strict=False
            )
    except (RuntimeError, KeyError) as error:
        raise DataError(f"{weights}: does not fit {spec.timm}: {error}") from error
    if loaded.missing_keys:
        raise DataError(
            f"{weights}: does not fit {spec.timm}; it lacks {', '.join(loaded.missing_keys[:5])}"
        )
    return model


def _require_biases(
    path: StrPath, state: dict[str, Tensor], model: nn.Module, spec: BackboneSpec
) -> None:
    """Check that no bias of DINOv3's attention is lost.

    timm has each of DINOv3's models with these biases, which in most are zero, and without them;
    in the latter it drops those of a file in the published layout.

    Raises:
        DataError: the file has biases that are not zero, and the model has none.
    """
    if "storage_tokens" not in state or "blocks.0.attn.q_bias" in dict(model.named_parameters()):
        return
    for name, value in state.items():
        if not name.endswith("attn.qkv.bias"):
            continue
        query, _, values = value.chunk(3)  # the keys' is masked
        if bool(query.any()) or bool(values.any()):
            raise DataError(
                f"{path}: does not fit {spec.timm}, which has no {name}; "
                "choose timm's model with _qkvb in its name"
            )


def vit_features(
    spec: BackboneSpec, weights: StrPath, precision: Precision = "float32"
) -> "ViTFeatures":
    """Load a backbone's model, see :func:`load_vit`, for its features.

    Raises:
        ConfigError: also if the model's attention has no such feature.
        DataError: see :func:`load_vit`.
    """
    model = load_vit(spec, weights)
    try:
        return ViTFeatures(model, spec.feature, precision, layer=spec.layer)
    except ConfigError as error:
        raise ConfigError(f"backbone {spec.name!r}: {error}") from error


class ViTFeatures(nn.Module):
    """Patch features of a vision transformer.

    CuVLER and TokenCut use the keys of DINO's last attention layer; CuVLER also uses DINOv2's
    patch tokens after the final norm. The forward pass stops at the layer; for keys, queries and
    values, at its projections. Images are normalised by the model's own mean and standard
    deviation.

    Args:
        model: of timm; is set to evaluation mode, and its layer may be replaced.
        feature: one of ``VIT_FEATURES``.
        precision: ``float32``, or ``float16`` for mixed precision by torch's autocast.
        layer: a layer's position; negative ones count from the last, -1.

    Raises:
        ConfigError: the model's attention has no such feature.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: Any, feature: str, precision: Precision = "float32", *, layer: int = -1
    ) -> None:
        super().__init__()
        self.mixed = precision == "float16"
        self.model = model.eval().requires_grad_(False)
        self.layer = layer % len(model.feature_info)
        self.has_norm = feature == "patch_tokens"
        # Models without prefix tokens may know only grids.
        self.output_format = "NLC" if hasattr(model, "num_prefix_tokens") else "NCHW"
        if feature != "patch_tokens":
            blocks = blocks_of(model)
            blocks[self.layer] = ProjectionBlock(blocks[self.layer], feature)
        config: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
        for name in ("mean", "std"):
            values = torch.tensor(config[name])[:, None, None] * 255
            self.register_buffer(name, values, persistent=False)

    @without_tf32()
    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Return (b, n, d) float32 features of (b, 3, h, w) uint8 images in row-major order."""
        with torch.autocast(images.device.type, torch.float16, enabled=self.mixed):
            (tokens,) = self.model.forward_intermediates(
                (images - self.mean) / self.std,
                indices=[self.layer],
                norm=self.has_norm,
                stop_early=True,
                output_fmt=self.output_format,
                intermediates_only=True,
            )
        features: Tensor = tokens.float()
        if self.output_format == "NCHW":
            return features.flatten(2).transpose(1, 2).contiguous()
        return features
