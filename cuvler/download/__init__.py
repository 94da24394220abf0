"""Resumable, verified downloads of published files, and unpacking of archives."""

from cuvler.download.archives import unpack
from cuvler.download.fetch import download
from cuvler.download.published import PublishedFile, published_files

__all__ = ["PublishedFile", "download", "published_files", "unpack"]
