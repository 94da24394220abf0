"""Pseudo-masks: object masks from eigenvectors, by a built-in or registered method."""

import importlib
from typing import TYPE_CHECKING, Any

from cuvler.pseudo_masks.record import PseudoMask

if TYPE_CHECKING:
    from cuvler.pseudo_masks.agglomerative import agglomerate
    from cuvler.pseudo_masks.mask_cut import maskcut
    from cuvler.pseudo_masks.vote_cut import votecut

__all__ = ["PseudoMask", "agglomerate", "maskcut", "votecut"]

# Imported lazily: the methods import numpy and scipy.
_MODULES = {"agglomerate": "agglomerative", "maskcut": "mask_cut", "votecut": "vote_cut"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
