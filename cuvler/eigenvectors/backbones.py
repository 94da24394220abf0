"""The table of backbones, which compute one feature vector per patch of an image."""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, get_args

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cuvler.errors import ConfigError

# The filter with which images are resized for every backbone.
RESAMPLING = Image.Resampling.LANCZOS
VitFeature = Literal["key", "query", "value", "key_query_value", "patch_tokens"]
# Features of a ViT: projections of an attention layer, or the tokens after the final norm.
VIT_FEATURES = get_args(VitFeature)


# Defaults of the graph of patches, as published.
TAU = 0.15
EPS = 1e-5


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone's entry in the table.

    Attributes:
        name: name in configs, paths and annotations.
        timm: name of the timm model with its pretrained tag; None for hand-made descriptors.
        feature: one of ``VIT_FEATURES``; ``pixels`` or ``colours`` for hand-made descriptors.
        size: side, in pixels, of the square that images are resized to.
        patch: side of a patch, in pixels; divides ``size``.
        layer: the layer of the features, from 0; negative ones count from the last, -1.
        tau: the backbone's own threshold of the graph of patches; None for the default.
        eps: its own weight of the other edges; None for the default.
    """

    name: str
    timm: str | None
    feature: str
    size: int
    patch: int
    layer: int = -1
    tau: float | None = None
    eps: float | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the patch grid."""
        return self.size // self.patch, self.size // self.patch

    def graph(self, *, tau: float | None = None, eps: float | None = None) -> dict[str, float]:
        """Return ``tau`` and ``eps`` of the graph of patches: the given, else the own ones."""
        chosen = {"tau": TAU, "eps": EPS} | _stated(tau=self.tau, eps=self.eps)
        return chosen | _stated(tau=tau, eps=eps)

    def settings(self) -> dict[str, Any]:
        """Return what determines the features, as JSON values, for the attributes of files."""
        values = asdict(self)
        # The file has those of its graph.
        del values["tau"], values["eps"]
        return {"backbone": values.pop("name"), **values}


def _stated(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _dino(name: str, timm: str, patch: int) -> BackboneSpec:
    return BackboneSpec(name, timm, feature="key", size=480, patch=patch)


def _dinov2(name: str, timm: str) -> BackboneSpec:
    return BackboneSpec(name, timm, feature="patch_tokens", size=476, patch=14)


def _dinov3(name: str, timm: str) -> BackboneSpec:
    # Patches of one image are more alike than DINO's: at the published 0.15 most have an edge.
    return BackboneSpec(name, timm, feature="patch_tokens", size=768, patch=16, tau=0.6)


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
        _dinov2("dinov2_l14", "vit_large_patch14_dinov2.lvd142m"),
        _dinov2("dinov2_s14_reg", "vit_small_patch14_reg4_dinov2.lvd142m"),
        _dinov2("dinov2_b14_reg", "vit_base_patch14_reg4_dinov2.lvd142m"),
        _dinov2("dinov2_l14_reg", "vit_large_patch14_reg4_dinov2.lvd142m"),
        _dinov3("dinov3_s16", "vit_small_patch16_dinov3.lvd1689m"),
        _dinov3("dinov3_b16", "vit_base_patch16_dinov3.lvd1689m"),
        _dinov3("dinov3_l16", "vit_large_patch16_dinov3.lvd1689m"),
        _dino("mae_b16", "vit_base_patch16_224.mae", 16),
        _dino("mae_l16", "vit_large_patch16_224.mae", 16),
        _dino("deit_s16", "deit_small_patch16_224.fb_in1k", 16),
        _dino("deit_b16", "deit_base_patch16_224.fb_in1k", 16),
        _pixels("pixels_p16", 480, 16),
        _pixels("pixels_p14", 476, 14),
        _pixels("pixels_p8", 480, 8),
        BackboneSpec("colours_p8", timm=None, feature="colours", size=480, patch=8),
        BackboneSpec("colours_p4", timm=None, feature="colours", size=480, patch=4),
    )
}


class BackboneDefinition(BaseModel):
    """A backbone's settings: those of a backbone of the table that differ, or a further ViT."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    timm: Annotated[str, Field(min_length=1)] | None = None
    """Name of the timm model, with its pretrained tag. Its patch size, mean and standard deviation
    are read from timm."""
    feature: VitFeature | None = None
    """Features of a patch: a projection of an attention layer, all three concatenated
    (key_query_value), or the tokens after the final norm (patch_tokens)."""
    size: Annotated[int, Field(ge=2)] | None = None
    """Images are resized to squares of this side, in pixels, a multiple of the patch."""
    layer: int | None = None
    """The layer of the features, from 0; negative numbers count from the last, -1, which is the
    default."""
    tau: Annotated[float, Field(ge=-1, le=1)] | None = None
    """As eigenvectors.tau, for this backbone."""
    eps: Annotated[float, Field(gt=0, lt=1)] | None = None
    """As eigenvectors.eps, for this backbone."""


Definitions = Mapping[str, BackboneDefinition]
_Values = Mapping[str, BackboneDefinition | Mapping[str, Any]]


def backbone_spec(name: str, definitions: _Values | None = None) -> BackboneSpec:
    """Return the entry of a backbone.

    Args:
        name: the backbone's name.
        definitions: name -> a :class:`BackboneDefinition` or its values: those that differ from
            the table's, or, of a timm vision transformer, at least ``timm``, ``feature`` and
            ``size``. The patch size is read from timm.

    Raises:
        ConfigError: the name is unknown, or a definition is incomplete or invalid.
    """
    defined = _parsed(definitions or {})
    names = dict.fromkeys([name, *defined])
    if mistakes := [wrong for one in names for wrong in definition_mistakes(one, defined)]:
        raise ConfigError("; ".join(mistakes))
    base, own = BACKBONES.get(name), defined.get(name, BackboneDefinition())
    values = {} if base is None else asdict(base)
    values |= own.model_dump(exclude_none=True) | {"name": name}
    if base is None or own.timm not in (None, base.timm):
        from cuvler.eigenvectors.timm_models import find_timm_model

        try:
            values["patch"] = find_timm_model(values["timm"]).patch
        except ConfigError as error:
            raise ConfigError(f"backbone {name!r}: {error}") from error
    spec = BackboneSpec(**values)
    if wrong := _misfit(spec):
        raise ConfigError(f"backbone {name!r}: {wrong}")
    return spec


def is_pixel_backbone(name: str) -> bool:
    """Return whether a backbone of this name is one of hand-made descriptors, without weights."""
    return name in BACKBONES and BACKBONES[name].timm is None


def own_graph(name: str, definitions: Definitions) -> dict[str, float]:
    """Return those of ``tau`` and ``eps`` that a backbone has of its own; timm is not asked."""
    base, own = BACKBONES.get(name), definitions.get(name)
    found = _stated(tau=base.tau, eps=base.eps) if base else {}
    return found | (_stated(tau=own.tau, eps=own.eps) if own else {})


def definition_mistakes(name: str, definitions: Definitions) -> list[str]:
    """List what is wrong with a backbone's name or definition; timm is not asked."""
    base, own = BACKBONES.get(name), definitions.get(name)
    if base is None and own is None:
        known = near_and_known(name, [*BACKBONES, *definitions])
        return [f"backbone {name!r} is not known; {known}"]
    if own is None:
        return []
    lacking = [key for key in ("timm", "feature", "size") if getattr(own, key) is None]
    if base is None and lacking:
        return [
            f"backbone {name!r}: {', '.join(lacking)} missing, which a backbone that is not in "
            f"the table needs; {near_and_known(name, BACKBONES)}"
        ]
    if base is None or (own.timm is not None and base.timm is not None):
        return []
    given = [key for key in ("timm", "feature", "layer") if getattr(own, key) is not None]
    if base.timm is None and given:
        return [f"backbone {name!r}: a pixel backbone has no {given[0]}"]
    wrong = _misfit(replace(base, size=own.size or base.size))
    return [f"backbone {name!r}: {wrong}"] if wrong else []


def near_and_known(name: str, known: Collection[str]) -> str:
    """Return the nearest name, if any is near, and all known ones, for a message."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


def _misfit(spec: BackboneSpec) -> str | None:
    size, patch = spec.size, spec.patch
    if size >= 2 * patch and size % patch == 0:
        return None
    near = max(2, size // patch) * patch
    return f"size {size} is not a multiple of patch {patch}; choose {near} or {near + patch}"


def parse_definitions(text: str) -> dict[str, BackboneDefinition]:
    """Parse definitions of backbones from JSON.

    Raises:
        ConfigError: not a JSON object of definitions.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"definitions of backbones: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError("definitions of backbones: must map names to definitions")
    return _parsed(content)


def _parsed(definitions: Mapping[str, Any]) -> dict[str, BackboneDefinition]:
    parsed = {}
    for name, values in definitions.items():
        try:
            parsed[name] = BackboneDefinition.model_validate(values, strict=True)
        except ValidationError as error:
            raise ConfigError("; ".join(_wrong_values(name, error))) from error
    return parsed


def _wrong_values(name: str, error: ValidationError) -> Iterator[str]:
    for mistake in error.errors():
        key = f"backbone {name!r}: {'.'.join(map(str, mistake['loc'])) or 'its definition'}"
        if mistake["type"] == "extra_forbidden":
            near = near_and_known(str(mistake["loc"][-1]), BackboneDefinition.model_fields)
            yield f"{key}: unknown key; {near}"
        else:
            yield f"{key}: {mistake['input']!r} is not allowed ({mistake['msg']})"
