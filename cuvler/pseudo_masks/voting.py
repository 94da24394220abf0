"""The stage: one shard's masks from the eigenvectors of its backbones."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvler.coco_json import write_annotations
from cuvler.eigenvectors.store import open_eigenvectors, read_eigenvectors
from cuvler.image_status import ImageStatus
from cuvler.pseudo_masks.image_record import ImageRecord, ImageTask, failed, find_masks
from cuvler.pseudo_masks.methods import Method
from cuvler.pseudo_masks.pool import map_isolated

if TYPE_CHECKING:
    import pandas as pd


def process_shard(
    listing: "pd.DataFrame",
    root: str | os.PathLike[str],
    eigenvectors: Sequence[str | os.PathLike[str]],
    method: Method,
    *,
    workers: int = 1,
) -> Iterator[ImageRecord]:
    """Find the masks of every image of a shard, in order.

    The records do not depend on the number of workers, and a few images are in memory at a
    time, however many the shard has. An image that kills its process is ``crashed``.

    Args:
        listing: the shard's rows, as :func:`cuvler.listing.read_listing` gives them.
        root: folder that the file names start from.
        eigenvectors: the shard's file of each backbone, in the order of the backbones.
        method: how to find masks.
        workers: number of processes.

    Raises:
        DataError: a file of eigenvectors is missing, damaged, or of other images than
            ``listing``; the message names it.
    """
    tasks = (
        ImageTask(image.image_id, image.file_name, image.size, image.status, image.vectors)
        for image in read_eigenvectors(eigenvectors, listing, settings=method.needs)
    )
    find = partial(find_masks, root=Path(root), method=method)
    for task, record in map_isolated(find, tasks, workers=max(1, min(workers, len(listing)))):
        yield record or failed(task, ImageStatus.CRASHED, "the process died on this image, twice")


def settings_of(eigenvectors: Sequence[str | os.PathLike[str]], method: Method) -> dict[str, Any]:
    """Give what decides the masks, for the file's ``info``: the same for every shard.

    Raises:
        DataError: a file of eigenvectors is missing, damaged or made for another method.
    """
    made_with: list[dict[str, Any]] = []
    for path in eigenvectors:
        with open_eigenvectors(path, settings=method.needs) as store:
            made_with.append(store.attributes)
    info: dict[str, Any] = {"method": method.name}
    info["backbones"] = [made["backbone"] for made in made_with]
    info["weights_sha256"] = [made.get("weights_sha256") for made in made_with]
    info |= {name: made_with[0].get(name) for name in ("tau", "eps")}
    return {**info, **method.settings(made_with)}


def write_shard(
    path: str | os.PathLike[str], info: dict[str, Any], records: Iterable[ImageRecord]
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
