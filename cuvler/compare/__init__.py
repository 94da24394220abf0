"""Comparing two result files by object size and by image."""

from cuvler.compare.scores import Comparison, compare

__all__ = ["Comparison", "compare"]
