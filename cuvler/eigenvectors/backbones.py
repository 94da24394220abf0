"""The table of backbones, which compute one feature vector per patch of an image."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from PIL import Image

from cuvler.errors import ConfigError

# The filter with which images are resized for every backbone.
RESAMPLING = Image.Resampling.LANCZOS
# Features of a ViT: projections of the last attention layer, or the tokens after the final norm.
VIT_FEATURES = ("key", "query", "value", "key_query_value", "patch_tokens")


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone's entry in the table.

    Attributes:
        name: name in configs, paths and annotations.
        timm: name of the timm model with its pretrained tag; None for hand-made descriptors.
        feature: one of ``VIT_FEATURES``, or ``pixels`` for hand-made descriptors.
        size: side, in pixels, of the square that images are resized to.
        patch: side of a patch, in pixels; divides ``size``.
    """

    name: str
    timm: str | None
    feature: str
    size: int
    patch: int

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the patch grid."""
        return self.size // self.patch, self.size // self.patch

    def settings(self) -> dict[str, Any]:
        """Return the attributes that stored files record about the backbone, as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"backbone": values.pop("name"), **values}


def _dino(name: str, timm: str, patch: int) -> BackboneSpec:
    return BackboneSpec(name, timm, feature="key", size=480, patch=patch)


def _dinov2(name: str, timm: str) -> BackboneSpec:
    return BackboneSpec(name, timm, feature="patch_tokens", size=476, patch=14)


def _pixels(name: str, size: int, patch: int) -> BackboneSpec:
    return BackboneSpec(name, timm=None, feature="pixels", size=size, patch=patch)


BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _dino("dino_s16", "vit_small_patch16_224.dino", 16),
        _dino("dino_s8", "vit_small_patch8_224.dino", 8),
        _dino("dino_b16", "vit_base_patch16_224.dino", 16),
        _dino("dino_b8", "vit_base_patch8_224.dino", 8),
        _dinov2("dinov2_s14", "vit_small_patch14_dinov2.lvd142m"),
        _dinov2("dinov2_b14", "vit_base_patch14_dinov2.lvd142m"),
        _pixels("pixels_p16", 480, 16),
        _pixels("pixels_p14", 476, 14),
        _pixels("pixels_p8", 480, 8),
    )
}


def backbone_spec(
    name: str, definitions: Mapping[str, Mapping[str, Any]] | None = None
) -> BackboneSpec:
    """Return the entry of a backbone; user definitions override the table.

    Args:
        name: the backbone's name.
        definitions: name -> ``{"timm": ..., "feature": ..., "size": ..., "patch": ...}``, for any
            timm vision transformer.

    Raises:
        ConfigError: the name is unknown, or its definition is incomplete or invalid.
    """
    definitions = definitions or {}
    if name in definitions:
        return _define(name, definitions[name])
    if name not in BACKBONES:
        known = [*BACKBONES, *definitions]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"backbone {name!r} is not known; {hint}known: {', '.join(known)}")
    return BACKBONES[name]


def parse_definitions(text: str) -> dict[str, Any]:
    """Parse definitions of backbones from JSON.

    Raises:
        ConfigError: not a JSON object.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"definitions of backbones: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError("definitions of backbones: must map names to definitions")
    return content


def _define(name: str, definition: Mapping[str, Any]) -> BackboneSpec:
    wanted = {"timm": str, "feature": str, "size": int, "patch": int}
    if not isinstance(definition, Mapping) or definition.keys() != wanted.keys():
        raise ConfigError(f"backbone {name!r}: define exactly the keys {', '.join(wanted)}")
    for key, kind in wanted.items():
        if type(definition[key]) is not kind:
            raise ConfigError(f"backbone {name!r}: {key} must be of type {kind.__name__}")
    if definition["feature"] not in VIT_FEATURES:
        raise ConfigError(f"backbone {name!r}: feature must be one of {', '.join(VIT_FEATURES)}")
    size, patch = definition["size"], definition["patch"]
    if patch < 1 or size < 2 * patch or size % patch:
        raise ConfigError(f"backbone {name!r}: size {size} is not a multiple of patch {patch}")
    return BackboneSpec(name=name, **definition)
