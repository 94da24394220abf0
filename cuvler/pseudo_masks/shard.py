"""The stage: one shard's masks from the eigenvectors of its backbones."""

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
    """Find the masks of every image of a shard, in order.

    The records do not depend on the number of workers, and a few images are in memory at a
    time, however many the shard has. An image that kills its process is ``crashed``.

    Args:
        listing: the shard's rows, as :func:`cuvler.listing.read_listing` gives them.
        image_root: folder that the file names start from.
        eigenvectors: the shard's file of each backbone that the method needs.
        method: how to find masks.
        workers: number of processes.

    Raises:
        DataError: a file of eigenvectors is missing, damaged, of other images than ``listing``,
            or does not have what the method needs; the message names it.
    """
    tasks = (
        ImageTask(image.image_id, image.file_name, image.size, image.status, image.vectors)
        for image in read_eigenvectors(eigenvectors, listing, needs=method.needs())
    )
    find = partial(find_masks, image_root=Path(image_root), method=method)
    for task, record in map_isolated(find, tasks, workers=max(1, min(workers, len(listing)))):
        yield record or failed(task, ImageStatus.CRASHED, "the process died on this image, twice")


def read_attributes(eigenvectors: Sequence[StrPath]) -> list[dict[str, Any]]:
    """Read what each file of eigenvectors says of itself.

    Raises:
        DataError: a file is missing or damaged.
    """
    attributes = []
    for path in eigenvectors:
        with open_eigenvectors(path) as store:
            attributes.append(store.attributes)
    return attributes


def info_of(attributes: Sequence[Mapping[str, Any]], method: Method) -> dict[str, Any]:
    """Give what decides the masks, for the file's ``info``: the same for every shard.

    Args:
        attributes: of the files of eigenvectors, from :func:`read_attributes`.
        method: how masks are found.
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
    """Write a shard's records as one line of JSON, atomically, each as it comes.

    Returns:
        How many images have each status.
    """
    statuses: Counter[str] = Counter()
    with write_annotations(path, {"info": info}) as writer:
        for record in records:
            statuses[record.image["status"]] += 1
            writer.add_image(record.image)
            for annotation in record.annotations:
                writer.add_annotation(annotation)
    return statuses
