"""Galleries: a few images with the results of every stage."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.drawing import draw_masks
from cuvler.eigenvectors.needs import NEEDS, Eigenvectors, Need
from cuvler.image_status import ImageStatus
from cuvler.images import Size
from cuvler.listing import read_listing
from cuvler.pseudo_masks.methods import Method, method_of
from cuvler.pseudo_masks.proposals import resize_nearest
from cuvler.report.cards import Card, Overlay, Panel, Vectors, make_card, make_panel
from cuvler.report.dataset import DatasetFiles
from cuvler.report.inputs import Inputs

_SUFFIX = ".zarr.zip"


@dataclass(frozen=True)
class Stored:
    """Stored eigenvectors of one backbone: their kind, and (k, h, w) by image."""

    kind: type[Need]
    images: Vectors


@dataclass(frozen=True)
class Proposals:
    """The proposals of a method that has them, such as VoteCut.

    Attributes:
        name: name of the pseudo-masks made from them.
        method: the method with its settings.
        vectors: backbone -> image id -> (k, h, w) eigenvectors; the method uses the first ones.
    """

    name: str
    method: Method
    vectors: Mapping[str, Vectors]

    def panel(
        self, image_id: int, file_name: str, picture: Image.Image, size: Size
    ) -> Panel | None:
        """Draw the proposals' outlines over one image; ``None`` if the method has no proposals."""
        maps = {
            backbone: self.vectors[backbone][image_id][: need.k]
            for backbone, need in self.method.needs().items()
            if image_id in self.vectors.get(backbone, {})
        }
        proposals = self.method.proposals(maps)
        if proposals is None:
            return None
        masks = [resize_nearest(mask, picture.height, picture.width) for mask in proposals]
        drawn = draw_masks(picture, masks, opacity=0)
        note = f"{len(masks)} by {len(maps)} {'voter' if len(maps) == 1 else 'voters'}"
        alt = f"proposals of {self.name}: {note}, outlined over {file_name}"
        return make_panel("proposals", note, alt, drawn)


def make_gallery(inputs: Inputs, dataset: str, files: DatasetFiles) -> list[Card]:
    """Draw images spread evenly over a dataset with the results of every stage.

    The panels are the image, eigenvectors, proposals, masks, detections and the ground truth.

    Raises:
        DataError: a file is missing or damaged, or does not match the images.
    """
    shards = _shards(inputs, dataset, files.images)
    vectors = {
        (method, backbone): _vectors(folder, files.images, shards)
        for (of, method, backbone), folder in inputs.eigenvectors.items()
        if of == dataset
    }
    heat_maps = _heat_maps(vectors)
    layers: list[Overlay] = [*_proposals(files, vectors), *files.layers]
    image_root = inputs.image_roots[dataset]
    return [
        make_card(image_root, image, layers, heat_maps, side=inputs.side)
        for image in files.images.values()
    ]


def _proposals(files: DatasetFiles, vectors: Mapping[tuple[str, str], Stored]) -> list[Proposals]:
    """Return the proposals of the dataset's pseudo-masks, with the settings stored in them."""
    found = []
    for name, info in files.infos.items():
        method = method_of(info)
        if method is not None:
            stored = {key[1]: of.images for key, of in vectors.items() if key[0] == name}
            found.append(Proposals(name, method, stored))
    return found


def _heat_maps(vectors: Mapping[tuple[str, str], Stored]) -> dict[str, Vectors]:
    """Return the heat maps to draw: title -> image id -> (h, w).

    Titles name the backbone, with the method and the number of the vector if there are several.
    """
    several = len({method for method, _ in vectors}) > 1
    titled: dict[str, dict[int, NDArray[np.float32]]] = {}
    for (method, backbone), stored in vectors.items():
        name = f"{backbone} for {method}" if several else backbone
        for image_id, vectors_ in stored.images.items():
            for title, map_ in stored.kind.pictures(name, vectors_).items():
                titled.setdefault(title, {})[image_id] = map_
    return dict(titled)


def _shards(inputs: Inputs, dataset: str, images: Collection[int]) -> set[int] | None:
    """Return the shards of some images; None without a listing."""
    if dataset not in inputs.listings:
        return None
    listing = read_listing(inputs.listings[dataset])
    return set(listing.loc[listing["image_id"].isin(list(images)), "shard"].tolist())


def _vectors(folder: Path, images: Collection[int], shards: Collection[int] | None) -> Stored:
    """Read the eigenvectors of some images from some shards, by default from all."""
    from cuvler.eigenvectors.store import open_eigenvectors

    found: dict[int, NDArray[np.float32]] = {}
    kind: type[Need] = Eigenvectors
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        if shards is not None and path.name.removesuffix(_SUFFIX) not in map(str, shards):
            continue
        with open_eigenvectors(path) as store:
            kind = NEEDS[store.attributes.get("problem", kind.problem)]
            for index, image_id in enumerate(store.image_ids.tolist()):
                if image_id in images and store.status[index] == ImageStatus.OK:
                    found[image_id] = store.vector(index)
    return Stored(kind, found)
