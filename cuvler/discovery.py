"""Discover objects in single images, without intermediate files."""

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

from cuvler.eigenvectors.backbones import (
    BACKBONES,
    BackboneDefinition,
    BackboneSpec,
    backbone_spec,
)
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath
from cuvler.pseudo_masks import PseudoMask
from cuvler.pseudo_masks.methods import Method, make_method
from cuvler.uniform import is_uniform

if TYPE_CHECKING:
    from torch import Tensor

    from cuvler.eigenvectors.features import Backbone

logger = logging.getLogger(__name__)

Weights = Mapping[str, StrPath]
Definitions = Mapping[str, BackboneDefinition | Mapping[str, Any]]


class NoWeightsError(DataError):
    """Weights of ViTs are neither given nor cached, and cannot be downloaded.

    Attributes:
        missing: names of the backbones -> of their files in the folder.
        folder: where their weights are looked for.
        reason: why they cannot be downloaded.
        instead: names of backbones without weights that the method can use.
    """

    def __init__(
        self,
        missing: Mapping[str, str],
        folder: Path,
        reason: str,
        instead: Sequence[str],
        message: str = "",
    ) -> None:
        super().__init__(message)
        self.missing, self.instead = dict(missing), list(instead)
        self.folder, self.reason = folder, reason

    def spelled(self, *, give: str, fetch: str, instead: str) -> "NoWeightsError":
        """Return the error with a message that has the ways out in the caller's words."""
        ways = (
            f"- Give files that you have:\n    {give}\n"
            "- Fetch them on a machine with a network, and copy them and their .sha256 into that "
            "folder:\n"
            f"    {fetch}\n"
            "- Do without, by hand-made patch descriptors; they find coloured regions rather than "
            "objects (on photographs of COCO, VoteCut's mask AP50 with them is 1 %):\n"
            f"    {instead}"
        )
        return NoWeightsError(
            self.missing,
            self.folder,
            self.reason,
            self.instead,
            f"the weights of {', '.join(self.missing)} are not in {self.folder} and cannot be "
            f"fetched from the Hugging Face hub ({self.reason}). Choose one:\n{ways}",
        )


@dataclass(frozen=True)
class Discovery:
    """The objects found in an image and the eigenvectors used.

    Attributes:
        masks: best first.
        eigenvectors: title -> (h, w) float32, in the order of the backbones.
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
    tau: float | None = None,
    definitions: Definitions | None = None,
    **settings: Any,
) -> list[PseudoMask]:
    """Find the objects in an image by VoteCut (CuVLER), MaskCut (CutLER) or another method.

    Args:
        image: any size and mode; converted to RGB.
        method: ``votecut``, ``maskcut`` (which uses one backbone), ``agglomerative`` or a method of
            another package.
        backbones: names from the table of backbones; by default the method's own, the six ViTs
            of CuVLER or the one of CutLER. ``pixels_p16``, ``pixels_p14``, ``pixels_p8``,
            ``colours_p8`` and ``colours_p4`` are hand-made patch descriptors, which need no
            weights.
        weights: weight files by backbone; others are downloaded once from timm's hub.
        device: ``cpu``, ``cuda``, or ``auto``: the GPU if there is one.
        tau: cosine similarity of features above which patches are similar, of all backbones; by
            default each one's own, else 0.15. Not allowed for a method without a graph of patches:
            ``agglomerative`` has ``thresholds`` instead.
        definitions: settings by backbone, and further ViTs of timm; see
            :func:`cuvler.eigenvectors.backbones.backbone_spec`.
        **settings: settings of the method: ``ks``, ``tau_m``, ``max_masks`` and ``crf`` of
            :class:`cuvler.pseudo_masks.vote_cut.VoteCut`, ``n`` and ``crf`` of
            :class:`cuvler.pseudo_masks.mask_cut.MaskCut`, ``thresholds``, ``max_masks`` and ``crf``
            of :class:`cuvler.pseudo_masks.agglomerative.Agglomerative`.

    Returns:
        Masks of the image's size, best first; empty if nothing was found.

    Raises:
        ConfigError: a method, setting, backbone or device is unknown, a value or the number of
            backbones is not allowed, or weights are given for a backbone that is not used.
        NoWeightsError: weights cannot be downloaded. Nothing replaces a missing backbone.
        DataError: weights cannot be read.
    """
    chosen, loaded = load_method(
        method,
        settings,
        backbones=backbones,
        weights=weights or {},
        device=device,
        definitions=definitions,
    )
    return discover_with(image, chosen, loaded, tau=tau).masks


def discover_with(
    image: Image.Image, method: Method, backbones: Sequence["Backbone"], *, tau: float | None = None
) -> Discovery:
    """Find the objects in an image with a loaded method; see :func:`load_method`.

    A uniform image has no objects. Backbones for which the eigensolver fails are left out; if all
    fail, there are no masks.

    Raises:
        ConfigError: ``tau`` is given for a method without a graph.
    """
    if tau is not None and not any(need.has_graph for need in method.needs().values()):
        raise ConfigError(
            f"{tau}: {method.name} has no graph of patches, and so no tau", parameter="tau"
        )
    rgb = image.convert("RGB")
    if is_uniform(rgb):
        logger.info("the image is uniform, so it has no objects")
        return Discovery([], {})
    features = {backbone.spec: extract_features(rgb, backbone) for backbone in backbones}
    return masks_from(rgb, method, features, tau=tau)


def extract_features(image: Image.Image, backbone: "Backbone") -> "Tensor":
    """Compute the features of an RGB image's patches, (1, n, d) on the backbone's device."""
    return backbone.features(backbone.prepare(image)[None].to(backbone.device))


def masks_from(
    image: Image.Image,
    method: Method,
    features: "Mapping[BackboneSpec, Tensor]",
    *,
    tau: float | None = None,
) -> Discovery:
    """Find the objects in an RGB image from the features of its patches, (1, n, d)."""
    vectors: dict[str, NDArray[np.float32]] = {}
    titled: dict[str, NDArray[np.float32]] = {}
    needs = method.needs()
    for spec, patches in features.items():
        name, grid = spec.name, spec.grid
        pairs = needs[name].solve(patches, grid, **spec.graph(tau=tau))
        if pairs.failed[0]:
            logger.warning("%s: the eigensolver failed; left out", name)
            continue
        vectors[name] = pairs.vectors[0].cpu().numpy().reshape(-1, *grid)
        titled |= needs[name].pictures(name, vectors[name])
    if needs and not vectors:
        return Discovery([], {})
    return Discovery(method.masks(image, vectors), titled)


def load_method(
    name: str,
    settings: Mapping[str, Any],
    *,
    backbones: Sequence[str] | None,
    weights: Weights,
    device: str = "auto",
    definitions: Definitions | None = None,
) -> tuple[Method, list["Backbone"]]:
    """Make a method and load its backbones, which stay in memory for later calls.

    Arguments and errors are those of :func:`discover`.
    """
    method = make_method(name, settings, backbones=backbones)
    specs = [backbone_spec(one, definitions) for one in method.needs()]
    instead = _weights_free(method)
    return method, load_backbones(specs, weights=weights, device=device, instead=instead)


def load_backbones(
    specs: Sequence[BackboneSpec],
    *,
    weights: Weights,
    device: str = "auto",
    instead: Sequence[str],
) -> list["Backbone"]:
    """Load backbones, which stay in memory for later calls.

    Args:
        specs: their entries in the table, possibly with another size.
        weights: weight files by name; others are downloaded once.
        device: see :func:`discover`.
        instead: names of backbones without weights, for the message if there is no network.

    Raises:
        ConfigError: weights are given for another backbone.
        NoWeightsError: weights cannot be downloaded.
        DataError: weights cannot be read.
    """
    files = {backbone: str(path) for backbone, path in weights.items()}
    used = list(dict.fromkeys(spec.name for spec in specs))
    for backbone in files:
        if backbone not in used:
            raise ConfigError(
                f"weights of {backbone!r} are given, but it is not used; used: {', '.join(used)}"
            )
    wanted = {s.name: s for s in specs if s.name not in files and s.timm is not None}
    files |= _fetched(list(wanted.values()), instead)
    return [_backbone(spec, files.get(spec.name), device) for spec in specs]


def _fetched(specs: Sequence[BackboneSpec], instead: Sequence[str]) -> dict[str, str]:
    """Return the cached weights of some ViTs; those that are missing are downloaded."""
    from cuvler.eigenvectors.weights import FetchWeightsError, fetch_backbone

    paths = {spec.name: _cached(spec) for spec in specs}
    lacking = [spec for spec in specs if not paths[spec.name].exists()]
    for position, spec in enumerate(lacking):
        try:
            fetch_backbone(spec, paths[spec.name])
        except FetchWeightsError as error:
            missing = {one.name: paths[one.name].name for one in lacking[position:]}
            raise NoWeightsError(missing, _cache(), error.reason, instead).spelled(
                give=f"weights={{{spec.name!r}: PATH, ...}}",
                fetch=f"cuvler weights, for each of {', '.join(missing)}, as "
                f"{', '.join(missing.values())}",
                instead=f"backbones={list(instead)}",
            ) from error
    return {name: str(path) for name, path in paths.items()}


def _weights_free(method: Method) -> list[str]:
    """Return the hand-made descriptors that a method can use: all of them, or the finest."""
    names = [spec.name for spec in BACKBONES.values() if spec.feature == "pixels"]
    return names if "backbones" in type(method).model_fields else names[-1:]


@lru_cache(maxsize=16)
def _backbone(spec: BackboneSpec, weights: str | None, device: str) -> "Backbone":
    from cuvler.eigenvectors.features import load_backbone

    return load_backbone(spec, weights=weights, device=device)


def _cached(spec: BackboneSpec) -> Path:
    """Return where a ViT's weights are kept; under timm's name if the table has another model."""
    listed = BACKBONES.get(spec.name)
    name = spec.name if listed is not None and listed.timm == spec.timm else spec.timm
    return _cache() / f"{name}.safetensors"


def _cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "cuvler" / "weights"
