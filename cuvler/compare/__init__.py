"""A closer look: where two result files differ, by size and by image."""

from cuvler.compare.scores import Comparison, compare

__all__ = ["Comparison", "compare"]
