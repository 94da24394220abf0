"""Discovery in single images: from a picture to masks without files between the stages."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.errors import DataError
from cuvler.pseudo_masks import PseudoMask, votecut
from cuvler.pseudo_masks.crf import Crf

if TYPE_CHECKING:
    from cuvler.eigenvectors.features import Backbone

logger = logging.getLogger(__name__)

# In CuVLER's order, and what stands in for them where no weights can be had.
VITS = ("dino_s16", "dinov2_b14", "dinov2_s14", "dino_b16", "dino_s8", "dino_b8")
PIXELS = ("pixels_p16", "pixels_p14", "pixels_p8")


@dataclass(frozen=True)
class Discovery:
    """What was found in an image, and what it was found with.

    Attributes:
        masks: best first.
        eigenvectors: backbone -> (h, w) float32, the second smallest eigenvector.
    """

    masks: list[PseudoMask]
    eigenvectors: dict[str, NDArray[np.float32]]


def discover(
    image: Image.Image,
    *,
    backbones: Sequence[str] | None = None,
    weights: Mapping[str, str | os.PathLike[str]] | None = None,
    device: str = "cpu",
    crf: Crf = "fast",
) -> list[PseudoMask]:
    """Find the objects in an image by VoteCut (CuVLER, section 3.1).

    Args:
        image: any size and mode; it is taken as RGB.
        backbones: names from the table of backbones. Without any, the six ViTs of CuVLER,
            or, where their weights are neither given nor can be fetched, the weights-free
            ``pixels_*`` with a warning.
        weights: weight files by backbone; those not named are fetched from the hub, once.
        device: ``cpu`` or ``cuda``.
        crf: the dense CRF's implementation.

    Returns:
        Masks of the image's size, best first; empty where nothing was found.

    Raises:
        ConfigError: a backbone is not known.
        DataError: weights cannot be read, or those of a named backbone cannot be fetched.
    """
    loaded = load_backbones(backbones, weights=weights or {}, device=device)
    return discover_with(image, loaded, crf=crf).masks


def discover_with(
    image: Image.Image,
    backbones: Sequence["Backbone"],
    *,
    crf: Crf = "fast",
) -> Discovery:
    """Find the objects in an image with backbones that are loaded; see :func:`discover`.

    A backbone whose eigenvector fails its check does not vote.
    """
    from cuvler.eigenvectors import ncut

    rgb = image.convert("RGB")
    vectors: dict[str, NDArray[np.float32]] = {}
    for backbone in backbones:
        prepared = backbone.prepare(rgb)[None].to(backbone.device)
        pairs = ncut(backbone.features(prepared)[0])
        if pairs.status == "failed":
            logger.warning("%s: the eigensolver failed; it does not vote", backbone.spec.name)
            continue
        vectors[backbone.spec.name] = pairs.vectors[0].cpu().numpy().reshape(backbone.spec.grid)
    return Discovery(votecut(rgb, vectors, crf=crf), vectors)


def load_backbones(
    names: Sequence[str] | None,
    *,
    weights: Mapping[str, str | os.PathLike[str]],
    device: str = "cpu",
) -> list["Backbone"]:
    """Load backbones, kept for the next call; arguments and errors as for :func:`discover`."""
    files = {name: str(path) for name, path in weights.items()}
    if names is not None:
        return [_backbone(name, files.get(name), device) for name in names]
    try:
        return [_backbone(name, files.get(name), device) for name in VITS]
    except DataError as error:
        if files:
            raise
        logger.warning(
            "the weights of the ViTs cannot be had (%s). Hand-made patch descriptors (%s) vote "
            "instead: expect masks of coloured regions rather than of objects",
            error,
            ", ".join(PIXELS),
        )
        return [_backbone(name, None, device) for name in PIXELS]


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
