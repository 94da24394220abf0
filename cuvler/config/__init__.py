"""The workflow's settings: their model, checks with clear messages, and datasets as paths."""

from cuvler.config.datasets import Dataset, GroundTruthSources
from cuvler.config.files import check, read, require_config_files
from cuvler.config.model import Settings

__all__ = ["Dataset", "GroundTruthSources", "Settings", "check", "read", "require_config_files"]
