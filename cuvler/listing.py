"""Listing a dataset's images and assigning them to shards."""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path, read_json
from cuvler.images import EXTENSIONS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_INT64_MAX = 2**63 - 1
_COLUMNS = ["image_id", "file_name", "shard"]


def list_images(
    root: StrPath,
    *,
    annotations: StrPath | None = None,
    ids: Literal["order", "digits", "annotations"] = "order",
    shards: int = 1,
) -> "pd.DataFrame":
    """List a dataset's images and deal them into shards of equal size.

    No image is opened and, with ``annotations``, none is looked for: a missing one is
    accounted for when it is read.

    Args:
        root: the folder of the images, searched at any depth; hidden files are left out.
        annotations: a COCO json; its ``images`` are then the listing.
        ids: where ids come from: the ``order`` of the sorted file names (from 1), the
            ``digits`` of each file's name (ImageNet: ``n01440764_10026`` is 144076410026),
            or the ``annotations``.
        shards: how many shards, of consecutive images, sizes differing by one at most.

    Returns:
        Columns ``image_id`` (int64, unique, ascending), ``file_name`` (relative to ``root``,
        with ``/``) and ``shard`` (int32, from 0).

    Raises:
        DataError: no images, a folder that cannot be read, a file name that has no digits or
            is not UTF-8, or ids that are not unique.
    """
    import numpy as np
    import pandas as pd

    if ids == "annotations":
        if annotations is None:
            raise DataError("ids from annotations need an annotations file")
        pairs = _ids_from_annotations(annotations)
    else:
        names = sorted(
            [image["file_name"] for image in _annotated_images(annotations)]
            if annotations
            else _walk(Path(root))
        )
        if not names:
            raise DataError(f"{root}: no image files ({', '.join(EXTENSIONS)}) in this folder")
        pairs = (
            [(_digits(name), name) for name in names]
            if ids == "digits"
            else list(enumerate(names, start=1))
        )
    listing = pd.DataFrame(sorted(pairs), columns=["image_id", "file_name"])
    listing = listing.astype({"image_id": "int64"})
    _check_unique(listing)
    sizes = [len(part) for part in np.array_split(np.arange(len(listing)), shards)]
    listing["shard"] = np.repeat(np.arange(shards, dtype=np.int32), sizes)
    return listing


def _refuse(error: OSError) -> None:
    # os.walk by itself passes over a folder that it may not read, and over all images in it.
    raise DataError(
        f"{error.filename}: cannot be read ({error.strerror}); its images would be left out "
        "without a word. Make the folder readable, or move it out of the dataset"
    ) from error


def _walk(root: Path) -> Iterator[str]:
    # Links to folders are followed (ImageNet is often a farm of links), each folder once.
    seen: set[str] = set()
    others: Counter[str] = Counter()
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            if not name.lower().endswith(EXTENSIONS):
                others[Path(name).suffix.lower() or "no extension"] += 1
                continue
            path = (Path(folder) / name).relative_to(root).as_posix()
            try:
                path.encode("utf-8")
            except UnicodeEncodeError:  # no json or parquet could name it
                raise DataError(f"{path!a}: not UTF-8; rename the file or folder") from None
            yield path
    if others:  # the pictures of many phones are .heic
        counts = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        logger.warning("%s: passed over what is not %s: %s", root, "/".join(EXTENSIONS), counts)


def _annotated_images(annotations: StrPath) -> list[dict[str, Any]]:
    content = read_json(annotations)
    images = content.get("images") if isinstance(content, dict) else None
    if not images:
        raise DataError(f"{annotations}: holds no images; a COCO json with 'images' is wanted")
    for image in images:
        named = isinstance(image, dict) and isinstance(image.get("file_name"), str)
        if not named or "id" not in image:
            raise DataError(f"{annotations}: image {image} lacks 'id' or 'file_name'")
    return list(images)


def _ids_from_annotations(annotations: StrPath) -> list[tuple[int, str]]:
    images = _annotated_images(annotations)
    for image in images:
        if not isinstance(image["id"], int):
            raise DataError(f"{annotations}: image id {image['id']!r} is not a whole number")
    return [(image["id"], image["file_name"]) for image in images]


def _digits(name: str) -> int:
    digits = "".join(re.findall(r"[0-9]", name.rpartition("/")[2].rpartition(".")[0]))
    if not digits or int(digits) > _INT64_MAX:
        raise DataError(
            f"{name}: the file name gives no image id (1 to 18 digits); set ids: order instead"
        )
    return int(digits)


def _check_unique(listing: "pd.DataFrame") -> None:
    twice = listing[listing["image_id"].duplicated(keep=False)]
    if len(twice):
        names = " and ".join(twice["file_name"].iloc[:2])
        raise DataError(
            f"{names}: both have image id {twice['image_id'].iloc[0]}; "
            "ids must be unique (set ids: order if they come from digits)"
        )


def write_listing(listing: "pd.DataFrame", path: StrPath) -> None:
    """Write a listing as parquet, atomically."""
    with atomic_path(path) as temporary:
        listing.to_parquet(temporary, index=False, write_page_checksum=True)


def listing_sha256(listing: "pd.DataFrame") -> str:
    """Give a digest of a listing's images, or of a shard's: what tells two datasets apart.

    Ids do not: most datasets count from 1.
    """
    digest = hashlib.sha256()
    for image_id, name in zip(listing["image_id"], listing["file_name"], strict=True):
        digest.update(f"{image_id} {name}\0".encode())
    return digest.hexdigest()


def read_listing(path: StrPath, shard: int | None = None) -> "pd.DataFrame":
    """Read a listing, or the rows of one shard, as :func:`list_images` describes them.

    Raises:
        DataError: the file is missing, damaged, or has no such shard.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        listing = pd.read_parquet(path, page_checksum_verification=True)
        # Changed bytes outside the pages can still rename a column, or take it for an index.
        if not isinstance(listing.index, pd.RangeIndex) or list(listing.columns) != _COLUMNS:
            raise ValueError(f"its columns are {list(listing.columns)}")
        if not (listing["image_id"].dtype.kind == listing["shard"].dtype.kind == "i"):
            raise ValueError("its ids are not whole numbers")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: not a listing ({error}); delete it and run again") from error
    if shard is None:
        return listing
    return listing[listing["shard"] == shard].reset_index(drop=True)
