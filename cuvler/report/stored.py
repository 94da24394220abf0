"""The stored eigenvectors of the images shown."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cuvler.eigenvectors.needs import NEEDS, Eigenvectors, Need
from cuvler.image_status import ImageStatus
from cuvler.listing import read_listing
from cuvler.report.cards import Vectors
from cuvler.report.inputs import Inputs

_SUFFIX = ".zarr.zip"
Voter = tuple[str, str]  # method and backbone


@dataclass(frozen=True)
class Stored:
    """Stored eigenvectors of one backbone.

    Attributes:
        kind: what they are.
        device: where they were extracted, such as ``cuda``; None if no shard was opened.
        images: image id -> (k, h, w).
    """

    kind: type[Need]
    device: str | None
    images: Vectors


def read_stored(inputs: Inputs, dataset: str, images: Collection[int]) -> dict[Voter, Stored]:
    """Read the eigenvectors of some images of a dataset.

    Only the shards that have them are opened if there is a listing; otherwise all shards are. For
    the device, the first shard is opened if no images are given.

    Raises:
        DataError: the listing or a shard is damaged.
    """
    folders = {
        (method, backbone): folder
        for (of, method, backbone), folder in inputs.eigenvectors.items()
        if of == dataset
    }
    shards = None
    if folders and images and dataset in inputs.listings:
        listing = read_listing(inputs.listings[dataset])
        rows = listing["image_id"].isin(list(images))
        shards = {f"{shard}{_SUFFIX}" for shard in listing.loc[rows, "shard"]}
    found = {}
    for voter, folder in folders.items():
        paths = sorted(folder.glob(f"*{_SUFFIX}"))
        chosen = [path for path in paths if shards is None or path.name in shards]
        found[voter] = _read(chosen if images else chosen[:1], images)
    return found


def _read(paths: Collection[Path], images: Collection[int]) -> Stored:
    from cuvler.eigenvectors.store import open_eigenvectors

    found: dict[int, NDArray[np.float32]] = {}
    kind: type[Need] = Eigenvectors
    device = None
    for path in paths:
        with open_eigenvectors(path) as store:
            kind = NEEDS[store.attributes.get("problem", kind.problem)]
            device = str(store.attributes.get("device", "cpu"))
            for index, image_id in enumerate(store.image_ids.tolist()):
                if image_id in images and store.status[index] == ImageStatus.OK:
                    found[image_id] = store.vector(index)
    return Stored(kind, device, found)
