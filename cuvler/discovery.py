"""Discovery in single images: from a picture to masks without files between the stages."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.errors import ConfigError, DataError
from cuvler.pseudo_masks import PseudoMask, votecut
from cuvler.pseudo_masks.crf import Crf

if TYPE_CHECKING:
    from cuvler.eigenvectors.features import Backbone

logger = logging.getLogger(__name__)

MethodName = Literal["votecut", "maskcut"]
# The published systems' ViTs, in their order, and what stands in where no weights can be had.
VITS: dict[MethodName, tuple[str, ...]] = {
    "votecut": ("dino_s16", "dinov2_b14", "dinov2_s14", "dino_b16", "dino_s8", "dino_b8"),
    "maskcut": ("dino_b8",),
}
PIXELS: dict[MethodName, tuple[str, ...]] = {
    "votecut": ("pixels_p16", "pixels_p14", "pixels_p8"),
    "maskcut": ("pixels_p8",),
}


@dataclass(frozen=True)
class Discovery:
    """What was found in an image, and what it was found with.

    Attributes:
        masks: best first.
        eigenvectors: name -> (h, w) float32: each backbone's eigenvector for VoteCut, and for
            MaskCut each cut's.
    """

    masks: list[PseudoMask]
    eigenvectors: dict[str, NDArray[np.float32]]


def discover(
    image: Image.Image,
    *,
    method: MethodName = "votecut",
    backbones: Sequence[str] | None = None,
    weights: Mapping[str, str | os.PathLike[str]] | None = None,
    device: str = "auto",
    n: int = 3,
    tau: float = 0.15,
    crf: Crf = "fast",
) -> list[PseudoMask]:
    """Find the objects in an image by VoteCut (CuVLER, section 3.1) or MaskCut (CutLER, 3.2).

    Args:
        image: any size and mode; it is taken as RGB.
        method: ``votecut``, or ``maskcut``, which works with one backbone.
        backbones: names from the table of backbones. Without any, the six ViTs of CuVLER or the
            one of CutLER, or, where their weights are neither given nor can be fetched, the
            weights-free ``pixels_*`` with a warning.
        weights: weight files by backbone; those not named are fetched from the hub, once.
        device: ``cpu``, ``cuda``, or ``auto``: the GPU if there is one.
        n: how many cuts MaskCut tries.
        tau: patches whose features have a cosine above it are joined.
        crf: the dense CRF's implementation.

    Returns:
        Masks of the image's size, best first; empty where nothing was found.

    Raises:
        ConfigError: a backbone is not known, or there are several for MaskCut; weights are given
            for one that is not used; there is no such device.
        DataError: weights cannot be read, or those of a named backbone cannot be fetched.
    """
    loaded = load_backbones(backbones, method=method, weights=weights or {}, device=device)
    return discover_with(image, loaded, method=method, n=n, tau=tau, crf=crf).masks


def discover_with(
    image: Image.Image,
    backbones: Sequence["Backbone"],
    *,
    method: MethodName = "votecut",
    n: int = 3,
    tau: float = 0.15,
    crf: Crf = "fast",
) -> Discovery:
    """Find the objects in an image with backbones that are loaded; see :func:`discover`.

    A backbone whose eigenvector fails its check does not vote.
    """
    rgb = image.convert("RGB")
    if method == "maskcut":
        return _cut(rgb, backbones[0], n, tau, crf)
    return _vote(rgb, backbones, tau, crf)


def _vote(rgb: Image.Image, backbones: Sequence["Backbone"], tau: float, crf: Crf) -> Discovery:
    from cuvler.eigenvectors import ncut

    vectors: dict[str, NDArray[np.float32]] = {}
    for backbone in backbones:
        prepared = backbone.prepare(rgb)[None].to(backbone.device)
        pairs = ncut(backbone.features(prepared)[0], tau=tau)
        if pairs.status == "failed":
            logger.warning("%s: the eigensolver failed; it does not vote", backbone.spec.name)
            continue
        vectors[backbone.spec.name] = pairs.vectors[0].cpu().numpy().reshape(backbone.spec.grid)
    return Discovery(votecut(rgb, vectors, crf=crf), vectors)


def _cut(rgb: Image.Image, backbone: "Backbone", n: int, tau: float, crf: Crf) -> Discovery:
    from cuvler.eigenvectors.cuts import cut_repeatedly
    from cuvler.eigenvectors.partitions import partitions
    from cuvler.pseudo_masks.mask_cut import refine_cuts

    grid = backbone.spec.grid
    prepared = backbone.prepare(rgb)[None].to(backbone.device)
    pairs = cut_repeatedly(backbone.features(prepared), grid, n=n, tau=tau)
    if pairs.status[0] == "failed":
        logger.warning("%s: the eigensolver failed; there are no cuts", backbone.spec.name)
        return Discovery([], {})
    vectors = pairs.vectors[0].cpu().numpy().reshape(-1, *grid)
    named = {f"cut {number}": vector for number, vector in enumerate(vectors, start=1)}
    return Discovery(refine_cuts(rgb, partitions(vectors), crf=crf), named)


def load_backbones(
    names: Sequence[str] | None,
    *,
    method: MethodName = "votecut",
    weights: Mapping[str, str | os.PathLike[str]],
    device: str = "auto",
) -> list["Backbone"]:
    """Load backbones, kept for the next call; arguments and errors as for :func:`discover`."""
    files = {name: str(path) for name, path in weights.items()}
    used = VITS[method] if names is None else names
    for name in files:
        if name not in used:
            raise ConfigError(f"weights of {name!r} are given, but used are {', '.join(used)}")
    if names is not None:
        if method == "maskcut" and len(names) != 1:
            raise ConfigError(f"MaskCut works with one backbone, not with {', '.join(names)}")
        return [_backbone(name, files.get(name), device) for name in names]
    try:
        return [_backbone(name, files.get(name), device) for name in VITS[method]]
    except DataError as error:
        if files:
            raise
        logger.warning(
            "the weights of the ViTs cannot be had (%s). Hand-made patch descriptors (%s) stand "
            "in: expect masks of coloured regions rather than of objects",
            error,
            ", ".join(PIXELS[method]),
        )
        return [_backbone(name, None, device) for name in PIXELS[method]]


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
