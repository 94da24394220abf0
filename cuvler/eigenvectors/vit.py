"""timm's vision transformers as backbones."""

from typing import Any, Literal, cast

import numpy as np
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from cuvler.devices import without_tf32
from cuvler.eigenvectors.backbones import RESAMPLING, BackboneSpec
from cuvler.eigenvectors.weights import read_state
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath

Precision = Literal["float32", "float16"]

# ImageNet's mean and standard deviation, with which all models of the table were trained.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def prepare_image(image: Image.Image, size: int) -> Tensor:
    """Resize an RGB image to (3, size, size) uint8 with Lanczos resampling."""
    resized = image.resize((size, size), RESAMPLING)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def create_vit(spec: BackboneSpec) -> VisionTransformer:
    """Create a backbone's model with random weights.

    Raises:
        ConfigError: timm has no such model, it is not a ``VisionTransformer``, or its patch size
            differs from the table's.
    """
    assert spec.timm is not None
    try:
        model = timm.create_model(spec.timm, num_classes=0, dynamic_img_size=True)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"backbone {spec.name!r}: timm model {spec.timm!r}: {error}") from error
    if not isinstance(model, VisionTransformer):
        raise ConfigError(f"backbone {spec.name!r}: {spec.timm!r} is not a timm VisionTransformer")
    if model.patch_embed.patch_size != (spec.patch, spec.patch):
        raise ConfigError(
            f"backbone {spec.name!r}: {spec.timm!r} has patches of "
            f"{model.patch_embed.patch_size[0]} pixels, not {spec.patch}"
        )
    return model


def load_vit(spec: BackboneSpec, weights: StrPath) -> VisionTransformer:
    """Create a backbone's model and load its weights from a local file.

    Raises:
        ConfigError: see :func:`create_vit`.
        DataError: the file cannot be read, or does not fit the model.
    """
    model = create_vit(spec)
    try:
        state = checkpoint_filter_fn(read_state(weights), model)
        loaded = model.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError) as error:
        raise DataError(f"{weights}: does not fit {spec.timm}: {error}") from error
    if loaded.missing_keys:
        raise DataError(
            f"{weights}: does not fit {spec.timm}; it lacks {', '.join(loaded.missing_keys[:5])}"
        )
    return model


class ViTFeatures(nn.Module):
    """Patch features of a vision transformer.

    CuVLER and TokenCut use the keys of DINO's last attention layer; CuVLER also uses DINOv2's
    patch tokens after the final norm. For keys, queries and values, the forward pass stops at the
    last block's projection.

    Args:
        model: is set to evaluation mode; its last block may be replaced.
        feature: one of ``VIT_FEATURES``.
        precision: ``float32``, or ``float16`` for mixed precision by torch's autocast.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: VisionTransformer, feature: str, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        self.mixed = precision == "float16"
        self.model = model.eval().requires_grad_(False)
        if feature != "patch_tokens":
            model.blocks[-1] = _LastBlock(model.blocks[-1], feature)
            model.norm = nn.Identity()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None] * 255, persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None] * 255, persistent=False)

    @without_tf32()
    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Return (b, n, d) float32 features of (b, 3, h, w) uint8 images in row-major order."""
        with torch.autocast(images.device.type, torch.float16, enabled=self.mixed):
            tokens = self.model.forward_features((images - self.mean) / self.std)
        features: Tensor = tokens[:, self.model.num_prefix_tokens :].float()
        return features


class _LastBlock(nn.Module):
    """The last block, reduced to projections of its attention layer."""

    def __init__(self, block: Any, feature: str) -> None:
        super().__init__()
        self.norm = block.norm1
        names = ("key", "query", "value") if feature == "key_query_value" else (feature,)
        self.projections = nn.ModuleList(_Projection(block.attn, name) for name in names)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        return torch.cat([projection(normed) for projection in self.projections], dim=-1)


class _Projection(nn.Module):
    """The keys, queries or values of an attention layer: one third of its qkv projection."""

    def __init__(self, attention: Any, name: str) -> None:
        super().__init__()
        third = ("query", "key", "value").index(name)
        rows = slice(third * attention.attn_dim, (third + 1) * attention.attn_dim)
        self.weight = nn.Parameter(attention.qkv.weight[rows], requires_grad=False)
        bias = attention.qkv.bias
        self.bias = None if bias is None else nn.Parameter(bias[rows], requires_grad=False)
        self.heads = (attention.num_heads, attention.head_dim)
        self.head_norm = (attention.q_norm, attention.k_norm, nn.Identity())[third]

    def forward(self, tokens: Tensor) -> Tensor:
        projected = nn.functional.linear(tokens, self.weight, self.bias)
        heads = self.head_norm(projected.reshape(*projected.shape[:-1], *self.heads))
        return cast("Tensor", heads.flatten(-2))
