"""Unsupervised object discovery: CuVLER and CutLER as one pipeline."""

from importlib.metadata import version

__version__ = version("cuvler")
