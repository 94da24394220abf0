"""Galleries: a few images with the results of every stage."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.drawing import draw_masks
from cuvler.images import Size
from cuvler.pseudo_masks.methods import Method, method_of
from cuvler.pseudo_masks.proposals import resize_nearest
from cuvler.report.cards import Card, Overlay, Panel, Vectors, make_card, make_panel
from cuvler.report.dataset import DatasetFiles
from cuvler.report.inputs import Inputs
from cuvler.report.stored import Stored, Voter


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


def make_gallery(
    inputs: Inputs, dataset: str, files: DatasetFiles, vectors: Mapping[Voter, Stored]
) -> list[Card]:
    """Draw images spread evenly over a dataset with the results of every stage.

    The panels are the image, eigenvectors, proposals, masks, detections and the ground truth.

    Raises:
        DataError: a file is missing or damaged, or does not match the images.
    """
    heat_maps = _heat_maps(vectors)
    layers: list[Overlay] = [*_proposals(files, vectors), *files.layers]
    image_root = inputs.image_roots[dataset]
    return [
        make_card(image_root, image, layers, heat_maps, side=inputs.side)
        for image in files.images.values()
    ]


def _proposals(files: DatasetFiles, vectors: Mapping[Voter, Stored]) -> list[Proposals]:
    """Return the proposals of the dataset's pseudo-masks, with the settings stored in them."""
    found = []
    for name, info in files.infos.items():
        method = method_of(info)
        if method is not None:
            stored = {key[1]: of.images for key, of in vectors.items() if key[0] == name}
            found.append(Proposals(name, method, stored))
    return found


def _heat_maps(vectors: Mapping[Voter, Stored]) -> dict[str, Vectors]:
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
