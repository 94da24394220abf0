"""Unsupervised object discovery: CuVLER and CutLER as one pipeline."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuvler.detector import load_detector
    from cuvler.discovery import discover
    from cuvler.drawing import plot

__all__ = ["__version__", "discover", "load_detector", "plot"]

__version__ = version("cuvler")

# Torch is imported by those who call for it; detectron2 by those who load a detector.
_MODULES = {"discover": "discovery", "load_detector": "detector", "plot": "drawing"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
