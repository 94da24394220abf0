"""Pseudo-masks of one shard: from the eigenvector files of its backbones to its json."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvler.coco import write_annotations
from cuvler.eigenvectors.backbones import BACKBONES
from cuvler.eigenvectors.store import open_eigenvectors, read_eigenvectors
from cuvler.errors import CuvlerError
from cuvler.files import StrPath
from cuvler.image_status import ImageStatus
from cuvler.logs import printable_list
from cuvler.pseudo_masks.image_record import ImageRecord, ImageTask, failed, find_masks
from cuvler.pseudo_masks.methods import Method
from cuvler.pseudo_masks.pool import Crash, map_isolated, run_alone
from cuvler.pseudo_masks.unfinished import crashed_images, earlier_records, unfinished_path

if TYPE_CHECKING:
    import pandas as pd


def process_shard(
    listing: "pd.DataFrame",
    image_root: StrPath,
    eigenvectors: Sequence[StrPath],
    method: Method,
    *,
    workers: int = 1,
    unfinished: StrPath | None = None,
) -> Iterator[ImageRecord]:
    """Compute the masks of every image of a shard, in the listing's order.

    The records do not depend on the number of workers. Only a few images are in memory at a
    time. An image that kills its worker process, also alone, has the status ``crashed``.

    Args:
        listing: the shard's rows, from :func:`cuvler.listing.read_listing`.
        image_root: folder that file names are relative to.
        eigenvectors: the shard's eigenvector files, one for each backbone that the method needs.
        method: computes the masks.
        workers: number of processes.
        unfinished: the file of an earlier run, see :func:`find_unfinished`; only images that have
            crashed are processed, one at a time.

    Raises:
        DataError: an eigenvector file is missing or damaged, has other images than ``listing``,
            or lacks vectors that the method needs. The message has its path.
    """
    only = None if unfinished is None else crashed_images(unfinished)
    tasks = (
        ImageTask(image.image_id, image.file_name, image.size, image.status, image.vectors)
        for image in read_eigenvectors(eigenvectors, listing, needs=method.needs(), only=only)
    )
    find = partial(find_masks, image_root=Path(image_root), method=method)
    if unfinished is None:
        outcomes = map_isolated(find, tasks, workers=max(1, min(workers, len(listing))))
    else:
        outcomes = ((task, run_alone(find, task)) for task in tasks)
    processed = (
        _crashed(task, outcome) if isinstance(outcome, Crash) else outcome
        for task, outcome in outcomes
    )
    if unfinished is None:
        yield from processed
        return
    for record in earlier_records(unfinished):
        yield next(processed) if record.image["status"] == ImageStatus.CRASHED else record


def _crashed(task: ImageTask, crash: Crash) -> ImageRecord:
    how = "ran out of memory" if crash.out_of_memory else "died"
    record = failed(task, ImageStatus.CRASHED, f"the process {how} on this image, also alone")
    return replace(record, out_of_memory=crash.out_of_memory)


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
    for name in ("tau", "eps"):
        values = [made[name] for made in attributes if name in made]  # features have neither
        if values:
            info[name] = values[0] if len(set(values)) == 1 else values
    if defined := {made["backbone"]: own for made in attributes if (own := _unlisted(made))}:
        info["definitions"] = defined
    return info | method.info()


def _unlisted(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a backbone's features that differ from the table's."""
    listed = BACKBONES[made["backbone"]].settings() if made["backbone"] in BACKBONES else {}
    names = ("timm", "feature", "size", "layer")
    return {name: made[name] for name in names if name in made and made[name] != listed.get(name)}


def write_shard(
    path: StrPath, info: dict[str, Any], records: Iterable[ImageRecord], *, last_try: bool = False
) -> Counter[str]:
    """Write a shard's records as one line of JSON, atomically, one record at a time.

    Args:
        path: the file. If images have crashed for want of memory, :func:`unfinished_path` is
            written instead.
        info: see :func:`info_of`.
        records: of all images of the shard.
        last_try: write the file also then: the images have had their second run.

    Returns:
        The number of images with each status.

    Raises:
        CuvlerError: images have crashed for want of memory, and the next run is to try them again.
    """
    statuses: Counter[str] = Counter()
    unfinished = unfinished_path(path)
    again = []
    with write_annotations(path if last_try else unfinished, {"info": info}) as writer:
        for record in records:
            statuses[record.image["status"]] += 1
            if record.out_of_memory:
                again.append(record.image["file_name"])
            writer.add_image(record.image)
            for annotation in record.annotations:
                writer.add_annotation(annotation)
    if last_try:
        unfinished.unlink(missing_ok=True)
    elif again:
        raise CuvlerError(
            f"{path}: not written, because processes ran out of memory or were killed, also alone, "
            f"on {len(again)} of {statuses.total()} images: {printable_list(again)}. Give the job "
            "more memory, and run again: only these images are processed then, one at a time; any "
            "that crashes again is left out"
        )
    else:
        unfinished.replace(path)
    return statuses
