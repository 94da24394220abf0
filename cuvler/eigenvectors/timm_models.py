"""What timm says about a vision transformer, without its weights, and models made by it.

timm takes seconds to import; this module does so on first use.
"""

import difflib
import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cuvler.errors import ConfigError


@dataclass(frozen=True)
class TimmModel:
    """A model of timm with one grid of patches for all layers.

    Attributes:
        name: timm's name, with the pretrained tag if there is one.
        patch: side of a patch, in pixels.
        depth: number of layers.
        channels: of a token.
        size_option: the argument that sets the size of images; None if there is none.
    """

    name: str
    patch: int
    depth: int
    channels: int
    size_option: str | None

    def create(self, size: int) -> Any:
        """Create the model, with random weights, for square images of a side in pixels."""
        # With dynamic_img_size, positions are resampled on each forward pass, as published.
        dynamic = {"dynamic_img_size": True, "img_size": size}
        chosen = {} if self.size_option is None else {self.size_option: dynamic[self.size_option]}
        return _create(self.name, **chosen)

    def index(self, layer: int) -> int:
        """Return a layer's position from the first; negative ones count from the last, -1.

        Raises:
            ConfigError: there is no such layer.
        """
        if not -self.depth <= layer < self.depth:
            raise ConfigError(
                f"layer {layer}: {self.name} has the layers 0 to {self.depth - 1}; -1 is the last"
            )
        return layer % self.depth


@lru_cache(maxsize=64)
def find_timm_model(name: str) -> TimmModel:
    """Look a model up in timm.

    Raises:
        ConfigError: timm has no such model, or it is not a vision transformer with one grid of
            patches.
    """
    import torch

    with torch.device("meta"):  # no memory, no arithmetic
        model = _create(name)
    layers = list(getattr(model, "feature_info", ()))
    kind = type(model).__name__
    patches = sorted({int(layer["reduction"]) for layer in layers})
    if len(patches) > 1:
        grids = ", ".join(map(str, patches))
        raise ConfigError(
            f"{name!r} (timm's {kind}) is no plain vision transformer: the grids of its layers "
            f"differ (strides of {grids} pixels)"
        )
    if not patches or not hasattr(model, "forward_intermediates") or blocks_of(model) is None:
        raise ConfigError(f"{name!r} (timm's {kind}) is no vision transformer with patch features")
    # A subclass may take its base's arguments without naming them.
    bases = type(model).__mro__
    known = {name for base in bases for name in inspect.signature(base).parameters}
    options = [option for option in ("dynamic_img_size", "img_size") if option in known]
    return TimmModel(
        name=name,
        patch=patches[0],
        depth=len(layers),
        channels=int(layers[-1]["num_chs"]),
        size_option=options[0] if options else None,
    )


def blocks_of(model: Any) -> Any:
    """Return the transformer blocks of a model of timm, which can be replaced; None without any."""
    return getattr(getattr(model, "encoder", model), "blocks", None)


def _create(name: str, **options: Any) -> Any:
    import timm

    try:
        return timm.create_model(name, num_classes=0, **options)
    # What timm's models raise on names and arguments that they do not support.
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"timm model {name!r}: {error}{_hint(name)}") from error


def _hint(name: str) -> str:
    import timm

    plain = name.partition(".")[0]
    if timm.is_model(plain):
        return ""
    close = difflib.get_close_matches(plain, timm.list_models(), n=1)
    return f"; did you mean {close[0]}?" if close else ""
