"""Discovery in single images: from a picture to masks without files between the stages."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.eigenvectors.backbones import BACKBONES
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath
from cuvler.pseudo_masks import PseudoMask
from cuvler.pseudo_masks.methods import Method, make_method

if TYPE_CHECKING:
    from cuvler.eigenvectors.features import Backbone

logger = logging.getLogger(__name__)

_EPS = 1e-5  # the weight of patches that are not alike

Weights = Mapping[str, StrPath]


@dataclass(frozen=True)
class Discovery:
    """What was found in an image, and what it was found with.

    Attributes:
        masks: best first.
        eigenvectors: title -> (h, w) float32: what the method was given, backbone by backbone.
    """

    masks: list[PseudoMask]
    eigenvectors: dict[str, NDArray[np.float32]]


def discover(
    image: Image.Image,
    *,
    method: str = "votecut",
    backbones: Sequence[str] | None = None,
    weights: Weights | None = None,
    device: str = "auto",
    tau: float = 0.15,
    **settings: Any,
) -> list[PseudoMask]:
    """Find the objects in an image by VoteCut (CuVLER, section 3.1) or MaskCut (CutLER, 3.2).

    Args:
        image: any size and mode; it is taken as RGB.
        method: ``votecut``; ``maskcut``, which works with one backbone; or one of another package.
        backbones: names from the table of backbones. Without any, the method's own (the six ViTs
            of CuVLER or the one of CutLER), or, where their weights are neither given nor can be
            fetched, the weights-free ``pixels_*`` with a warning.
        weights: weight files by backbone; those not named are fetched from the hub, once.
        device: ``cpu``, ``cuda``, or ``auto``: the GPU if there is one.
        tau: patches whose features have a cosine above it are joined.
        **settings: of the method, by name: ``ks``, ``tau_m`` and ``crf`` of
            :class:`cuvler.pseudo_masks.vote_cut.VoteCut`, ``n`` and ``crf`` of
            :class:`cuvler.pseudo_masks.mask_cut.MaskCut`.

    Returns:
        Masks of the image's size, best first; empty where nothing was found.

    Raises:
        ConfigError: the method, a setting or a backbone is not known, a value is not allowed, or
            the number of backbones is not the method's; weights are given for a backbone that is
            not used; there is no such device.
        DataError: weights cannot be read, or those of a named backbone cannot be fetched.
    """
    chosen, loaded = load_method(
        method, settings, backbones=backbones, weights=weights or {}, device=device
    )
    return discover_with(image, chosen, loaded, tau=tau).masks


def discover_with(
    image: Image.Image, method: Method, backbones: Sequence["Backbone"], *, tau: float = 0.15
) -> Discovery:
    """Find the objects in an image with what :func:`load_method` gives; see :func:`discover`.

    A backbone whose eigensolver fails takes no part; where all fail, there are no masks.
    """
    rgb = image.convert("RGB")
    vectors: dict[str, NDArray[np.float32]] = {}
    titled: dict[str, NDArray[np.float32]] = {}
    needs = method.needs()
    for backbone in backbones:
        name, grid = backbone.spec.name, backbone.spec.grid
        prepared = backbone.prepare(rgb)[None].to(backbone.device)
        pairs = needs[name].solve(backbone.features(prepared), grid, tau=tau, eps=_EPS)
        if pairs.status[0] == "failed":
            logger.warning("%s: the eigensolver failed; it takes no part", name)
            continue
        vectors[name] = pairs.vectors[0].cpu().numpy().reshape(-1, *grid)
        titled |= zip(needs[name].titles(name), vectors[name], strict=True)
    if needs and not vectors:
        return Discovery([], {})
    return Discovery(method.masks(rgb, vectors), titled)


def load_method(
    name: str,
    settings: Mapping[str, Any],
    *,
    backbones: Sequence[str] | None,
    weights: Weights,
    device: str = "auto",
) -> tuple[Method, list["Backbone"]]:
    """Make a method and load its backbones, which are kept for the next call.

    Arguments and errors are those of :func:`discover`.
    """
    method = make_method(name, settings, backbones=backbones)
    files = {backbone: str(path) for backbone, path in weights.items()}
    used = list(method.needs())
    for backbone in files:
        if backbone not in used:
            raise ConfigError(f"weights of {backbone!r} are given, but used are {', '.join(used)}")
    try:
        return method, [_backbone(one, files.get(one), device) for one in used]
    except DataError as error:
        if files or backbones is not None:
            raise
        stand_ins = _stand_ins(method)
        logger.warning(
            "the weights of the ViTs cannot be had (%s). Hand-made patch descriptors (%s) stand "
            "in: expect masks of coloured regions rather than of objects",
            error,
            ", ".join(stand_ins),
        )
    method = make_method(name, settings, backbones=stand_ins)
    return method, [_backbone(one, None, device) for one in stand_ins]


def _stand_ins(method: Method) -> list[str]:
    """What can take the place of a method's ViTs: all descriptors, or the finest."""
    pixels = [spec.name for spec in BACKBONES.values() if spec.timm is None]
    return pixels if "backbones" in type(method).model_fields else pixels[-1:]


@lru_cache(maxsize=16)
def _backbone(name: str, weights: str | None, device: str) -> "Backbone":
    from cuvler.eigenvectors.backbones import backbone_spec
    from cuvler.eigenvectors.features import load_backbone
    from cuvler.eigenvectors.weights import fetch_backbone

    spec = backbone_spec(name)
    if weights is None and spec.timm is not None:
        fetched = _cache() / f"{name}.safetensors"
        if not fetched.exists():
            fetch_backbone(spec, fetched)
        weights = str(fetched)
    return load_backbone(spec, weights=weights, device=device)


def _cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "cuvler" / "weights"
