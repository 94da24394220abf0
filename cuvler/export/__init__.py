"""Annotations and predictions in the formats of other tools."""

from cuvler.export.formats import FORMATS, write
from cuvler.export.source import Source

__all__ = ["FORMATS", "Source", "write"]
