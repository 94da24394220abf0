"""Trying settings on one's own images, to lay out what they find in a picture and a page."""

from cuvler.tuning.grid import Row, Setting, settings_grid
from cuvler.tuning.results import Line, Results, best_of
from cuvler.tuning.snippet import config_snippet
from cuvler.tuning.trials import ImageTrials, Trial, try_settings
from cuvler.tuning.truth import Score, Truth

__all__ = [
    "ImageTrials",
    "Line",
    "Results",
    "Row",
    "Score",
    "Setting",
    "Trial",
    "Truth",
    "best_of",
    "config_snippet",
    "settings_grid",
    "try_settings",
]
