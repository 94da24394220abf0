"""Merge the shards' pseudo-masks into one COCO json that accounts for every image."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cuvler.coco import (
    Annotation,
    AnnotationWriter,
    Image,
    Needs,
    Section,
    read_coco,
    write_annotations,
)
from cuvler.coco.refusals import refusal
from cuvler.coco.values import Refused, missing, refused, shown
from cuvler.errors import DataError
from cuvler.files import StrPath
from cuvler.image_status import USABLE, ImageStatus
from cuvler.logs import printable, printable_list
from cuvler.progress import with_progress

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Record = dict[str, Any]
CATEGORIES = [{"id": 1, "name": "object", "supercategory": "object"}]
_AGAIN = "delete it and run again"
# What a shard's records have, beyond COCO's rules.
SHARD_NEEDS = Needs(
    file_names=True, masks=True, scores=True, highest_score=1.0, raw=True, made_here=True
)
_KEYS = frozenset(
    ("image_id", "segmentation", "bbox", "area", "score", "cluster_size", "crf_success")
)


def merge_shards(
    listing: "pd.DataFrame",
    shards: Sequence[StrPath],
    output: StrPath,
    *,
    max_failed: float = 0.01,
) -> Counter[str]:
    """Merge shard files into one COCO json, record by record.

    Memory grows only with the listing, by some tens of bytes per image. Images that could not be
    used are logged and listed under ``excluded`` with their status and reason; ``summary`` has the
    number of images per status. Annotation ids start at 1 in the order of the images, so that the
    output is the same, byte for byte, for any number of shards.

    Args:
        listing: the listing of the dataset, from :func:`cuvler.listing.read_listing`.
        shards: paths of the files of shard 0, 1, ...
        output: the COCO json to write.
        max_failed: maximum share of excluded images.

    Returns:
        The number of images per status.

    Raises:
        DataError: an image is missing or in the wrong shard, a mask differs in size from its
            image, shards were made with different settings, or more than ``max_failed`` of the
            images failed; the message names them.
    """
    num_shards = listing["shard"].nunique()
    if num_shards and listing["shard"].max() >= len(shards):
        raise DataError(f"{len(shards)} shard files, but the listing has {num_shards} shards")
    settings = _settings(shards[0])
    excluded: list[Record] = []
    statuses: Counter[str] = Counter()
    opening = {"info": settings, "licenses": [], "categories": CATEGORIES}
    with write_annotations(output, opening) as writer:
        for number, path in enumerate(with_progress(shards, len(shards), unit="shard")):
            if (found := _settings(path)) != settings:
                raise DataError(
                    f"{path}: made with different settings than {shards[0]} "
                    f"({_differences(found, settings)}); delete the older one and run again"
                )
            # Shards are consecutive: a slice, unlike a boolean index, does not copy the names.
            start, stop = np.searchsorted(listing["shard"], [number, number + 1])
            shard = _Shard(path, listing.iloc[start:stop])
            shard.copy(writer, excluded)
            statuses += shard.statuses
        failed = [(image["file_name"], image["status"]) for image in excluded]
        require_usable(failed, statuses.total(), max_failed)
        writer.closing["excluded"] = excluded
        counts = {"images": dict(sorted(statuses.items())), "annotations": writer.num_annotations}
        writer.closing["summary"] = counts
    return statuses


def _settings(path: StrPath) -> Record:
    """Return the settings a shard was made with, which all shards must share."""
    for record in read_coco(path, SHARD_NEEDS, quiet=True):
        if isinstance(record, Section) and isinstance(record.content, dict):
            return {key: value for key, value in record.content.items() if key != "shard"}
        break
    raise DataError(f"{path}: not a shard of pseudo-masks; {_AGAIN}")


class _Shard:
    """Copies one shard's file into the merged one, checking it against its rows of the listing.

    Attributes:
        statuses: number of images per status so far.
    """

    def __init__(self, path: StrPath, rows: "pd.DataFrame") -> None:
        self.path = path
        self.statuses: Counter[str] = Counter()
        self._ids = rows["image_id"].to_numpy()
        self._names = rows["file_name"].to_numpy()
        # Height and width of each image of the shard; zeros if it has no masks.
        self._sizes = np.zeros((len(rows), 2), dtype=np.int32)
        self._num_images = self._num_annotations = 0
        self._masked = -1  # index of the last mask's image

    def copy(self, writer: AnnotationWriter, excluded: list[Record]) -> None:
        """Write the shard's records; append images that could not be used to ``excluded``.

        Raises:
            DataError: the file is incomplete, or does not match the listing.
        """
        for record in read_coco(self.path, SHARD_NEEDS):
            if not isinstance(record, Image | Annotation):
                continue
            try:
                if isinstance(record, Image):
                    self._copy_image(record, writer, excluded)
                else:
                    self._require_all_images()
                    self._copy_annotation(record, writer)
            except Refused as reason:
                index = self._num_images if isinstance(record, Image) else self._num_annotations
                raise refusal(self.path, SHARD_NEEDS, index, record, reason) from None
        self._require_all_images()
        self._pass_over(len(self._ids))

    def _require_all_images(self) -> None:
        if self._num_images != len(self._ids):
            raise self._mismatch()

    def _copy_image(self, image: Image, writer: AnnotationWriter, excluded: list[Record]) -> None:
        number = self._num_images
        if number == len(self._ids) or image.id != self._ids[number]:
            raise self._mismatch()
        if image.file_name != self._names[number]:
            raise DataError(
                f"{self.path}: image {image.id} is {image.file_name!r}, but "
                f"{self._names[number]!r} in the listing: a shard of another dataset? {_AGAIN}"
            )
        status = image.raw.get("status")
        if status not in list(ImageStatus):
            raise refused("status", status, f"one of {', '.join(ImageStatus)}")
        self.statuses[status] += 1
        if status in USABLE:
            if image.size is None:
                raise missing("width", "the image's width in pixels, and 'height' its height")
            width, height = image.size
            names = {"id": image.id, "file_name": image.file_name}
            writer.add_image({**names, "width": width, "height": height})
            if status == ImageStatus.OK:
                self._sizes[number] = height, width
        else:
            if not isinstance(image.raw.get("reason"), str):
                raise missing("reason", "why the image could not be used")
            logger.warning("left out: %s (%s: %s)", image.file_name, status, image.raw["reason"])
            excluded.append(dict(image.raw))
        self._num_images += 1

    def _copy_annotation(self, annotation: Annotation, writer: AnnotationWriter) -> None:
        image_id = annotation.image_id
        if self._masked < 0 or image_id != self._ids[self._masked]:
            number = int(np.searchsorted(self._ids, image_id))
            if (
                number <= self._masked
                or number >= self._num_images
                or self._ids[number] != image_id
            ):
                raise DataError(
                    f"{self.path}: a mask of image {image_id}, which is not in the shard or out of "
                    f"order; {_AGAIN}"
                )
            self._pass_over(number)
            self._masked = number
        self._check_mask(annotation)
        number = writer.num_annotations + 1
        writer.add_annotation({"id": number, "category_id": 1, "iscrowd": 0, **annotation.raw})
        self._num_annotations += 1

    def _pass_over(self, following: int) -> None:
        """Check that no image between the last mask's and ``following`` should have masks."""
        skipped = np.flatnonzero(self._sizes[self._masked + 1 : following, 0])
        if len(skipped):
            names = self._names[self._masked + 1 + skipped]
            raise DataError(
                f"{self.path}: the masks of {printable_list(names)} are missing; {_AGAIN}"
            )

    def _check_mask(self, annotation: Annotation) -> None:
        """Check what only a shard's mask must have; the reader checks that it fills its image."""
        if annotation.raw.keys() != _KEYS:
            strange = sorted(annotation.raw.keys() ^ _KEYS)
            raise Refused(f"its keys must be {', '.join(sorted(_KEYS))}; see {shown(strange)}")
        if not self._sizes[self._masked].any():
            name = self._names[self._masked]
            raise Refused(f"a mask of {printable(name)}, an image of which none was found")
        if annotation.pixels is None or annotation.pixels != annotation.area:
            area = annotation.raw["area"]
            raise refused("area", area, f"that of the mask, {annotation.pixels} pixels")

    def _mismatch(self) -> DataError:
        """Return an error that describes how the images differ from the listing's."""
        images = read_coco(self.path, SHARD_NEEDS, only=("images",), quiet=True)
        found = [image.id for image in images if isinstance(image, Image)]
        names = dict(zip(self._ids.tolist(), self._names, strict=True))
        known = set(found)
        if missing := [name for image_id, name in names.items() if image_id not in known]:
            how = f"{len(missing)} images of the listing are missing: {printable_list(missing)}"
        elif strange := [str(image_id) for image_id in found if image_id not in names]:
            how = f"not in this shard of the listing: image ids {printable_list(strange)}"
        else:
            how = "images are listed twice or out of order"
        return DataError(f"{self.path}: {how}; {_AGAIN}")


def _differences(one: Record, other: Record) -> str:
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return ", ".join(f"{key}: {one.get(key)!r} against {other.get(key)!r}" for key in keys)


def require_usable(failed: Sequence[tuple[str, str]], total: int, max_failed: float) -> None:
    """Check that not too many images failed.

    Args:
        failed: file name and status of each failed image.
        total: number of all images.
        max_failed: maximum share of failed images.

    Raises:
        DataError: more images failed; the message names them.
    """
    if len(failed) > max_failed * total:
        named = printable_list(f"{name} ({status})" for name, status in failed)
        raise DataError(
            f"{len(failed)} of {total} images could not be used, more than the share of "
            f"{max_failed:g} that max_failed allows: {named}. The log names "
            "them all. Repair or remove them and delete the dataset's listing, or raise the limit",
            parameter="max_failed",
        )
