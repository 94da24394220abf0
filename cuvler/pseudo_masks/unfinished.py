"""Shards that lack images for want of memory: kept for the next run, which tries those again.

A file that exists is whole, so the shard's own file is not written then. Next to it lies a hidden
one of the same format, in which those images have the status ``crashed``. The next run copies the
other records from it, processes the images one at a time, and writes the shard's file, in which an
image that has crashed again is accounted for as such.
"""

import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvler.annotations import SHARD_NEEDS
from cuvler.coco import Annotation, Image, Section, read_coco
from cuvler.errors import DataError
from cuvler.files import StrPath
from cuvler.image_status import ImageStatus
from cuvler.pseudo_masks.image_record import ImageRecord

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def unfinished_path(path: StrPath) -> Path:
    """Return the path of the file for the next run, given the shard's."""
    return Path(path).with_name(f".{Path(path).name}.unfinished")


def find_unfinished(
    path: StrPath, info: Mapping[str, Any], listing: "pd.DataFrame", inputs: Iterable[StrPath]
) -> Path | None:
    """Return the file that an earlier run left for this shard; None if there is none to go on with.

    Args:
        path: the shard's file.
        info: what determines the masks; a file made with other settings is not used.
        listing: the shard's rows; nor is one of other images.
        inputs: what the shard is made from; nor is an older one.
    """
    found = unfinished_path(path)
    if not found.exists():
        return None
    newest = max((os.stat(one).st_mtime_ns for one in inputs), default=0)  # noqa: PTH116
    try:
        current = found.stat().st_mtime_ns >= newest and _matches(found, info, listing)
    except DataError as error:
        logger.warning("%s", error)
        current = False
    if not current:
        logger.info("%s: of other inputs or settings; the shard is processed from the start", found)
        return None
    return found


def _matches(path: Path, info: Mapping[str, Any], listing: "pd.DataFrame") -> bool:
    images = []
    info = json.loads(json.dumps(info))
    for record in read_coco(path, SHARD_NEEDS, quiet=True):
        if isinstance(record, Section) and record.name == "info" and record.content != info:
            return False
        if isinstance(record, Image):
            images.append((record.id, record.file_name))
    return images == list(zip(listing["image_id"], listing["file_name"], strict=True))


def crashed_images(path: StrPath) -> set[int]:
    """Return the ids of the images that are to be tried again."""
    images = read_coco(path, SHARD_NEEDS, only=("images",), quiet=True)
    return {
        image.id
        for image in images
        if isinstance(image, Image) and image.raw.get("status") == ImageStatus.CRASHED
    }


def earlier_records(path: StrPath) -> Iterator[ImageRecord]:
    """Yield the records of the file, in order."""
    annotations = (
        record
        for record in read_coco(path, SHARD_NEEDS, quiet=True)
        if isinstance(record, Annotation)
    )
    groups = itertools.groupby(annotations, key=lambda annotation: annotation.image_id)
    for image in read_coco(path, SHARD_NEEDS, only=("images",), quiet=True):
        if isinstance(image, Image):
            masked = image.raw.get("status") == ImageStatus.OK
            found = [dict(one.raw) for one in next(groups)[1]] if masked else []
            yield ImageRecord(dict(image.raw), found)
