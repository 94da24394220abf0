"""Unsupervised object discovery: CuVLER and CutLER as one pipeline."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuvler.detector import load_detector
    from cuvler.discovery import discover

__all__ = ["__version__", "discover", "load_detector"]

__version__ = version("cuvler")


def __getattr__(name: str) -> Any:
    # Torch is imported by those who call for it; detectron2 by those who load a detector.
    if name == "discover":
        from cuvler.discovery import discover

        return discover
    if name == "load_detector":
        from cuvler.detector import load_detector

        return load_detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
