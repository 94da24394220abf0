"""The stage: one shard's masks from the eigenvectors of every backbone, by VoteCut."""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvler import masks
from cuvler.eigenvectors.store import ImageEigenvectors, open_eigenvectors, read_eigenvectors
from cuvler.errors import ImageError
from cuvler.files import atomic_path
from cuvler.images import open_image
from cuvler.pseudo_masks.crf import Crf
from cuvler.pseudo_masks.pool import map_isolated
from cuvler.pseudo_masks.vote_cut import votecut

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class VoteCutSettings:
    """How masks are voted: the arguments of :func:`cuvler.pseudo_masks.votecut`."""

    ks: tuple[int, ...] = (2, 3)
    tau_m: float = 0.2
    crf: Crf = "pydensecrf"


@dataclass(frozen=True)
class ImageRecord:
    """What the shard's file holds of one image.

    Attributes:
        image: ``id``, ``file_name``, ``width`` and ``height`` (None where it cannot be opened),
            ``status``, and ``reason`` where the status is neither ``ok`` nor ``no_mask``.
        annotations: COCO records with RLE, best first.
    """

    image: dict[str, Any]
    annotations: list[dict[str, Any]]


def vote_shard(
    listing: "pd.DataFrame",
    root: str | os.PathLike[str],
    eigenvectors: Sequence[str | os.PathLike[str]],
    settings: VoteCutSettings,
    *,
    workers: int = 1,
) -> Iterator[ImageRecord]:
    """Vote on the masks of every image of a shard, in order.

    The records do not depend on the number of workers, and a few images are in memory at a
    time, however many the shard has. An image that kills its process is ``crashed``.

    Args:
        listing: the shard's rows, as :func:`cuvler.images.read_listing` gives them.
        root: folder that the file names start from.
        eigenvectors: the shard's file of each backbone, in the order of the backbones.
        settings: how to vote.
        workers: number of processes.

    Raises:
        DataError: a file of eigenvectors is missing, damaged, or of other images than
            ``listing``; the message names it.
    """
    items = read_eigenvectors(eigenvectors, listing)
    vote = partial(_vote, root=Path(root), settings=settings)
    for item, record in map_isolated(vote, items, workers=max(1, min(workers, len(listing)))):
        yield record or _failed(item, "crashed", "the process died on this image, twice")


def _vote(item: ImageEigenvectors, *, root: Path, settings: VoteCutSettings) -> ImageRecord:
    path = root / item.file_name
    if item.status in ("missing", "unreadable"):
        return _failed(item, item.status, "when its eigenvectors were extracted")
    try:
        image = open_image(path)
    except ImageError as error:
        # Roots differ between machines; the accounting must not.
        return _failed(item, error.status, str(error).removeprefix(f"{path}: "))
    if item.status != "ok":
        return _failed(item, item.status, "a backbone has no eigenvector for it", image.size)
    found = votecut(image, item.vectors, ks=settings.ks, tau_m=settings.tau_m, crf=settings.crf)
    annotations = []
    for mask in found:
        rle = masks.encode(mask.mask)
        annotations.append(
            {
                "image_id": item.image_id,
                "segmentation": rle,
                **masks.geometry(rle),
                "score": mask.score,
                "cluster_size": mask.cluster_size,
                "crf_success": mask.crf_success,
            }
        )
    return ImageRecord(_image(item, "ok" if found else "no_mask", image.size), annotations)


def _image(
    item: ImageEigenvectors, status: str, size: tuple[int, int] | tuple[None, None]
) -> dict[str, Any]:
    width, height = size
    names = {"id": item.image_id, "file_name": item.file_name}
    return {**names, "width": width, "height": height, "status": status}


def _failed(
    item: ImageEigenvectors,
    status: str,
    reason: str,
    size: tuple[int, int] | tuple[None, None] = (None, None),
) -> ImageRecord:
    return ImageRecord({**_image(item, status, size), "reason": reason}, [])


def settings_of(
    eigenvectors: Sequence[str | os.PathLike[str]], settings: VoteCutSettings
) -> dict[str, Any]:
    """Give what decides the masks, for the file's ``info``: the same for every shard.

    Raises:
        DataError: a file of eigenvectors is missing or damaged.
    """
    backbones = []
    for path in eigenvectors:
        with open_eigenvectors(path) as store:
            backbones.append(store.backbone)
    return {
        "method": "votecut",
        "backbones": backbones,
        "ks": list(settings.ks),
        "tau_m": settings.tau_m,
        "crf": settings.crf,
    }


def write_shard(
    path: str | os.PathLike[str], info: dict[str, Any], records: Iterable[ImageRecord]
) -> Counter[str]:
    """Write a shard's records as one line of JSON, atomically, each as it comes.

    Returns:
        How many images have each status.
    """
    statuses: Counter[str] = Counter()
    count = 0
    # Annotations come after the images in the file, but with them from the vote.
    with (
        atomic_path(path) as temporary,
        tempfile.TemporaryFile("w+", dir=temporary.parent, encoding="utf-8") as annotations,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        stream.write(f'{{"info":{_dumps(info)},"images":[')
        for record in records:
            stream.write(("," if statuses else "") + _dumps(record.image))
            statuses[record.image["status"]] += 1
            for annotation in record.annotations:
                annotations.write(("," if count else "") + _dumps(annotation))
                count += 1
        stream.write('],"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, stream)
        stream.write("]}\n")
    return statuses


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
