"""Listing a dataset's images and assigning them to shards."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cuvler.coco import Image, Needs, read_coco
from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path
from cuvler.image_access import image_path
from cuvler.image_folders import FolderState, find_images, images_digest, may_differ
from cuvler.images import EXTENSIONS, Size
from cuvler.logs import printable

if TYPE_CHECKING:
    import pandas as pd

_INT64_MAX = 2**63 - 1
_COLUMNS = ["image_id", "file_name", "shard"]
_SIZES = ["width", "height"]
INITIAL_STATE = "initial"


class ListedImage(NamedTuple):
    """A row of a listing.

    Attributes:
        image_id: unique in the dataset.
        file_name: relative to the image root.
        size: (width, height) stated by the dataset's ground truth, for
            :func:`cuvler.images.open_image`; None if unknown.
    """

    image_id: int
    file_name: str
    size: Size | None = None


def list_images(
    image_root: StrPath,
    *,
    ground_truth: StrPath | None = None,
    ids: Literal["order", "digits", "ground_truth"] = "order",
    shards: int = 1,
) -> "pd.DataFrame":
    """List a dataset's images and assign them to shards of equal size.

    No image is opened, and with ``ground_truth`` the files need not exist: missing images get a
    status when they are read.

    Args:
        image_root: the image root, searched recursively; hidden files are ignored.
        ground_truth: a COCO json with the images to list, instead of those under ``image_root``.
        ids: source of the image ids: ``order`` numbers the sorted file names from 1, ``digits``
            uses the digits of each file name (ImageNet: ``n01440764_10026`` is 144076410026),
            ``ground_truth`` uses the ids of the ground truth.
        shards: number of shards, each of consecutive images; their sizes differ by at most one.

    Returns:
        Columns ``image_id`` (int64, unique, ascending), ``file_name`` (relative to ``image_root``,
        with ``/``) and ``shard`` (int32, from 0); ``width`` and ``height`` (Int32, null if
        unknown) if the ground truth states sizes. ``attrs["folders"]`` has the state of the folders
        searched, for :func:`listed_state`; it is empty with ``ground_truth``.

    Raises:
        DataError: there are no images, a folder is not readable, a file name has no digits, is
            not UTF-8 or leads out of the image root, or ids are not unique.
    """
    import numpy as np
    import pandas as pd

    folders: dict[str, FolderState] = {}
    if ground_truth is None:
        if ids == "ground_truth":
            raise DataError("ids: ground_truth needs a ground_truth file")
        images, folders = find_images(image_root)
        if not images:
            raise DataError(
                f"{image_root}: no image files ({', '.join(EXTENSIONS)}) in this folder"
            )
        listing = pd.DataFrame({"file_name": images})
    else:
        listing = _annotated_images(ground_truth, with_ids=ids == "ground_truth")
    if ids != "ground_truth":
        names = listing["file_name"]
        numbers = map(_digits, names) if ids == "digits" else range(1, len(names) + 1)
        listing["image_id"] = list(numbers)
    listing = listing.astype({"image_id": "int64"})
    listing = listing.sort_values(["image_id", "file_name"], ignore_index=True)
    _check_unique(listing)
    counts = [len(part) for part in np.array_split(np.arange(len(listing)), shards)]
    listing["shard"] = np.repeat(np.arange(shards, dtype=np.int32), counts)
    listing = listing[[*_COLUMNS, *(name for name in _SIZES if name in listing)]]
    listing.attrs["folders"] = folders
    return listing


def listed_images(listing: "pd.DataFrame") -> list[ListedImage]:
    """Return a listing's rows in order."""
    columns = [listing["image_id"].tolist(), listing["file_name"].tolist()]
    if set(_SIZES) <= set(listing.columns):
        # Null becomes 0, which is not a valid side.
        sides = (listing[name].fillna(0).tolist() for name in _SIZES)
        columns.append([size if all(size) else None for size in zip(*sides, strict=True)])
    return [ListedImage(*row) for row in zip(*columns, strict=True)]


def _annotated_images(ground_truth: StrPath, *, with_ids: bool) -> "pd.DataFrame":
    """Return the images of a COCO json by file name, with sizes and, if requested, ids."""
    import pandas as pd

    needs = Needs(sections=("images",), file_names=True)
    records = read_coco(ground_truth, needs, only=("images",))
    found = [record for record in records if isinstance(record, Image)]
    if not found:
        raise DataError(f"{ground_truth}: has no images; it must be a COCO json with 'images'")
    for image in found:
        image_path("", str(image.file_name), source=ground_truth)
    images = sorted(found, key=lambda image: str(image.file_name))
    columns: dict[str, Any] = {"file_name": [image.file_name for image in images]}
    if with_ids:
        columns["image_id"] = [image.id for image in images]
    if any(image.size for image in images):
        for index, name in enumerate(_SIZES):
            sides = [image.size and image.size[index] for image in images]
            columns[name] = pd.array(sides, dtype="Int32")
    return pd.DataFrame(columns)


def _digits(name: str) -> int:
    digits = "".join(re.findall(r"[0-9]", name.rpartition("/")[2].rpartition(".")[0]))
    if not digits or int(digits) > _INT64_MAX:
        raise DataError(
            f"{printable(name)}: no image id from the digits of the file name (1 to 18); "
            "set ids: order"
        )
    return int(digits)


def _check_unique(listing: "pd.DataFrame") -> None:
    twice = listing[listing["image_id"].duplicated(keep=False)]
    if len(twice):
        names = " and ".join(map(printable, twice["file_name"].iloc[:2]))
        raise DataError(
            f"{names}: both have image id {twice['image_id'].iloc[0]}; "
            "ids must be unique (set ids: order if they come from digits)"
        )


def write_listing(listing: "pd.DataFrame", path: StrPath, *, state: str = INITIAL_STATE) -> None:
    """Write a listing as parquet, atomically.

    Args:
        listing: as returned by :func:`list_images`.
        path: the file.
        state: what :func:`listed_state` returns until the images change.
    """
    listing = listing.copy(deep=False)
    listing.attrs["state"] = state
    with atomic_path(path) as temporary:
        listing.to_parquet(temporary, index=False, write_page_checksum=True)


def listed_state(path: StrPath, image_root: StrPath) -> str:
    """Return a string that changes when images are added to an image root or removed.

    The workflow passes it to the job that lists the images, and Snakemake runs that job again when
    it has changed. While the images are those of the listing, it is the string stored there, at
    first ``INITIAL_STATE``; otherwise it is a digest of their names. Without changes this costs
    one ``stat`` a folder.

    An image root that is missing or has no images counts as unchanged: it may not be mounted.

    Args:
        path: the listing, made from a folder; it need not exist yet.
        image_root: the folder of images.

    Raises:
        DataError: the listing is damaged or inside the image root, or a folder cannot be read.
    """
    _require_outside(path, image_root)
    try:
        attributes = _read_parquet(path, columns=[]).attrs
    except FileNotFoundError:
        return INITIAL_STATE
    state = str(attributes.get("state", INITIAL_STATE))
    folders = {name: FolderState(*values) for name, values in attributes.get("folders", {}).items()}
    if not Path(image_root).is_dir() or not may_differ(image_root, folders):
        return state
    # Exact, unlike may_differ: a new link to a folder that is already searched adds no images.
    found = images_digest(find_images(image_root)[1])
    return state if found in ("", images_digest(folders)) else found


def _require_outside(path: StrPath, image_root: StrPath) -> None:
    """Refuse results inside an image root: every run would list the images of the one before."""
    file, folder = Path(path).resolve(), Path(image_root).resolve()
    if file.is_relative_to(folder):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if not hidden:
            raise DataError(
                f"{image_root}: contains the results ({path}), which would be searched for images; "
                "set results to a folder outside, or to a hidden one (.results)"
            )


def listing_sha256(listing: "pd.DataFrame") -> str:
    """Return a digest of the images of a listing or of a shard, which identifies the dataset.

    Ids do not suffice: many datasets number their images from 1. Known sizes are included, because
    they determine the orientation in which an image is opened.
    """
    digest = hashlib.sha256()
    for image_id, name, size in listed_images(listing):
        digest.update(f"{image_id} {name} {size or ''}\0".encode())
    return digest.hexdigest()


def read_listing(path: StrPath, shard: int | None = None) -> "pd.DataFrame":
    """Read a listing or the rows of one shard; see :func:`list_images` for the columns.

    Raises:
        DataError: the file is missing, damaged, or has no such shard.
    """
    import pandas as pd

    try:
        listing = _read_parquet(path)
        listing.attrs = {}  # pandas copies them in every operation, and there may be many folders
        # Damage outside the checksummed pages can rename a column or turn it into an index.
        if not isinstance(listing.index, pd.RangeIndex) or list(listing.columns) not in (
            _COLUMNS,
            [*_COLUMNS, *_SIZES],
        ):
            raise ValueError(f"its columns are {list(listing.columns)}")
        numbers = listing.drop(columns="file_name")
        if not all(dtype.kind == "i" for dtype in numbers.dtypes):
            raise ValueError("its ids, shards or sizes are not integers")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (LookupError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if shard is None:
        return listing
    return listing[listing["shard"] == shard].reset_index(drop=True)


def _read_parquet(path: StrPath, columns: list[str] | None = None) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: StrPath, error: Exception) -> DataError:
    return DataError(f"{path}: not a listing ({error}); delete it and run again")
