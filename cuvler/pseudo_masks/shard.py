"""Pseudo-masks of one shard: from the eigenvector files of its backbones to its json."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvler.coco_json import write_annotations
from cuvler.eigenvectors.store import open_eigenvectors, read_eigenvectors
from cuvler.files import StrPath
from cuvler.image_status import ImageStatus
from cuvler.pseudo_masks.image_record import ImageRecord, ImageTask, failed, find_masks
from cuvler.pseudo_masks.methods import Method
from cuvler.pseudo_masks.pool import map_isolated

if TYPE_CHECKING:
    import pandas as pd


def process_shard(
    listing: "pd.DataFrame",
    image_root: StrPath,
    eigenvectors: Sequence[StrPath],
    method: Method,
    *,
    workers: int = 1,
) -> Iterator[ImageRecord]:
    """Compute the masks of every image of a shard, in the listing's order.

    The records do not depend on the number of workers. Only a few images are in memory at a
    time. An image that kills its worker process has the status ``crashed``.

    Args:
        listing: the shard's rows, from :func:`cuvler.listing.read_listing`.
        image_root: folder that file names are relative to.
        eigenvectors: the shard's eigenvector files, one for each backbone that the method needs.
        method: computes the masks.
        workers: number of processes.

    Raises:
        DataError: an eigenvector file is missing or damaged, has other images than ``listing``,
            or lacks vectors that the method needs. The message has its path.
    """
    tasks = (
        ImageTask(image.image_id, image.file_name, image.size, image.status, image.vectors)
        for image in read_eigenvectors(eigenvectors, listing, needs=method.needs())
    )
    find = partial(find_masks, image_root=Path(image_root), method=method)
    for task, record in map_isolated(find, tasks, workers=max(1, min(workers, len(listing)))):
        yield record or failed(task, ImageStatus.CRASHED, "the process died on this image, twice")


def read_attributes(eigenvectors: Sequence[StrPath]) -> list[dict[str, Any]]:
    """Read the attributes of each eigenvector file.

    Raises:
        DataError: a file is missing or damaged.
    """
    attributes = []
    for path in eigenvectors:
        with open_eigenvectors(path) as store:
            attributes.append(store.attributes)
    return attributes


def info_of(attributes: Sequence[Mapping[str, Any]], method: Method) -> dict[str, Any]:
    """Return what determines the masks, for the file's ``info``; the same for every shard.

    Args:
        attributes: attributes of the eigenvector files, from :func:`read_attributes`.
        method: computes the masks.
    """
    info: dict[str, Any] = {"method": method.name}
    info["backbones"] = [made["backbone"] for made in attributes]
    info["weights_sha256"] = [made.get("weights_sha256") for made in attributes]
    for made in attributes[:1]:
        info |= {name: made.get(name) for name in ("tau", "eps")}
    return info | method.info()


def write_shard(
    path: StrPath, info: dict[str, Any], records: Iterable[ImageRecord]
) -> Counter[str]:
    """Write a shard's records as one line of JSON, atomically, one record at a time.

    Returns:
        The number of images with each status.
    """
    statuses: Counter[str] = Counter()
    with write_annotations(path, {"info": info}) as writer:
        for record in records:
            statuses[record.image["status"]] += 1
            writer.add_image(record.image)
            for annotation in record.annotations:
                writer.add_annotation(annotation)
    return statuses
