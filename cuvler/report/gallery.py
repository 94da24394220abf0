"""Galleries: a few images with the results of every stage."""

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.coco import Annotation, Needs, Section, read_coco
from cuvler.coco import Image as ImageRecord
from cuvler.drawing import draw_heat_map, draw_masks
from cuvler.eigenvectors.needs import NEEDS, Eigenvectors, Need
from cuvler.errors import DataError, ImageError
from cuvler.image_access import image_path
from cuvler.image_status import ImageStatus
from cuvler.images import Size, open_image
from cuvler.listing import ListedImage
from cuvler.masks import decode
from cuvler.pseudo_masks.methods import Method, method_of
from cuvler.pseudo_masks.proposals import resize_nearest
from cuvler.report.inputs import SIDE, Inputs, of_dataset

Sizes = Mapping[int, Size | None]  # (width, height) by image id
Vectors = Mapping[int, NDArray[np.float32]]  # by image id
_SHOWN = 12  # masks drawn per picture
_DRAWN = Needs(format="either", sections=("annotations",), listed=False)
_LISTED = Needs(sections=("images",), file_names=True)


@dataclass(frozen=True)
class Stored:
    """Stored eigenvectors of one backbone: their kind, and (k, h, w) by image."""

    kind: type[Need]
    images: Vectors


@dataclass(frozen=True)
class Panel:
    """One picture with its captions; ``source`` is a data URL."""

    title: str
    note: str
    alt: str
    width: int
    height: int
    source: str


@dataclass(frozen=True)
class Card:
    """The panels of one image, or the error if it cannot be opened."""

    file_name: str
    note: str
    panels: list[Panel]
    error: str | None = None

    @property
    def columns(self) -> int:
        """Panels per row: at most five, in rows of equal length."""
        rows = -(-len(self.panels) // 5) or 1
        return -(-len(self.panels) // rows)


@dataclass(frozen=True)
class Layer:
    """Masks to draw over images: their source and the records by image id."""

    title: str
    kind: str
    path: Path
    records: dict[int, list[Annotation]]

    def panel(self, image_id: int, file_name: str, picture: Image.Image, size: Size) -> Panel:
        """Draw the masks of one image over it; ``size`` is its original (width, height)."""
        shown = self.records.get(image_id, [])
        masks = [self._mask(record, size, picture.size) for record in shown]
        scores = [record.score for record in shown if record.score is not None]
        drawn = draw_masks(picture, masks, scores if len(scores) == len(masks) else None)
        note = f"{len(masks)} {self.kind if len(masks) != 1 else self.kind.removesuffix('s')}"
        return make_panel(self.title, note, f"{self.title}: {note} over {file_name}", drawn)

    def _mask(self, record: Annotation, size: Size, shown: Size) -> Any:
        if record.size not in (None, size):
            found, expected = (sides and sides[::-1] for sides in (record.size, size))
            raise DataError(
                f"{self.path}: a mask of image {record.image_id} has {found} pixels "
                f"(height, width), but the image {expected}; are they of the same dataset?"
            )
        rle = record._replace(size=size).rle()
        return np.asarray(Image.fromarray(decode(rle)).resize(shown, Image.Resampling.NEAREST))


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


def make_gallery(inputs: Inputs, dataset: str) -> list[Card]:
    """Draw images spread evenly over a dataset with the results of every stage.

    The panels are the image, eigenvectors, proposals, masks, detections and the ground truth.

    Raises:
        DataError: a file is missing or damaged, or does not match the images.
    """
    images = _choose(inputs, dataset)
    vectors = {
        (method, backbone): _vectors(folder, images)
        for (of, method, backbone), folder in inputs.eigenvectors.items()
        if of == dataset
    }
    heat_maps = _heat_maps(vectors)
    layers: list[Layer | Proposals] = [
        *_proposals(inputs, dataset, vectors),
        *_layers(inputs, dataset, images),
    ]
    image_root = inputs.image_roots[dataset]
    return [
        make_card(image_root, image, layers, heat_maps, side=inputs.side)
        for image in images.values()
    ]


def make_card(
    image_root: Path,
    listed: ListedImage,
    layers: Sequence[Layer | Proposals],
    heat_maps: Mapping[str, Vectors],
    note: str = "",
    *,
    side: int = SIDE,
) -> Card:
    """Draw the panels of one image: the image, heat maps and layers, at most ``side`` pixels."""
    image_id, file_name, stated = listed
    try:
        image = open_image(image_path(image_root, file_name), stated)
    except (DataError, ImageError) as error:
        return Card(file_name, note, [], error=str(error))
    # Small images are enlarged, at most twofold, so that contours and scores stay thin.
    scale = min(2.0, side / max(image.size))
    picture = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    )
    panels = [make_panel("image", "", f"the image {file_name}", picture)]
    for title, vectors in heat_maps.items():
        if image_id in vectors:
            drawn = draw_heat_map(vectors[image_id], picture.size)
            panels.append(
                make_panel(title, "eigenvector", f"{title}: eigenvector of {file_name}", drawn)
            )
    overlays = (layer.panel(image_id, file_name, picture, image.size) for layer in layers)
    panels += [panel for panel in overlays if panel is not None]
    return Card(file_name, note, panels)


def make_panel(title: str, note: str, alt: str, picture: Image.Image) -> Panel:
    """Return a panel with the picture embedded as WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=78, method=4)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Panel(title, note, alt, picture.width, picture.height, source)


def best_records(
    path: Path, sizes: Sizes, *, score_threshold: float = 0.0
) -> dict[int, list[Annotation]]:
    """Return the highest-scoring records of some images, by image id.

    Crowds are skipped; records without scores keep their order and are not limited in number.

    Args:
        path: COCO results or annotations.
        sizes: image id -> (width, height), None if unknown, of the images.
        score_threshold: records with a lower score are left out.

    Raises:
        DataError: the file is of neither format, or a record is invalid; see
            :func:`cuvler.coco.read_coco`.
    """
    found: dict[int, list[Annotation]] = {}
    for record in read_coco(path, _DRAWN, sizes=sizes, quiet=True):
        if not isinstance(record, Annotation) or record.iscrowd or record.image_id not in sizes:
            continue
        if record.score is None or record.score >= score_threshold:
            found.setdefault(record.image_id, []).append(record)
    for image_id, records in found.items():
        if all(record.score is not None for record in records):
            found[image_id] = sorted(records, key=lambda record: -(record.score or 0.0))[:_SHOWN]
    return found


def truth_layer(inputs: Inputs, dataset: str, sizes: Sizes) -> Layer:
    """Return the ground truth of some images as a layer."""
    path = inputs.ground_truth[dataset]
    return Layer("ground truth", "objects", path, best_records(path, sizes))


def coco_images(path: Path) -> dict[int, ListedImage]:
    """Return the images of a COCO json by id.

    Raises:
        DataError: the file or an image is invalid; see :func:`cuvler.coco.read_coco`.
    """
    return {
        image.id: ListedImage(image.id, str(image.file_name), image.size)
        for image in read_coco(path, _LISTED, only=("images",), quiet=True)
        if isinstance(image, ImageRecord)
    }


def _choose(inputs: Inputs, dataset: str) -> dict[int, ListedImage]:
    """Choose images spread evenly over the ids of the ground truth or the first annotations."""
    lists = [*of_dataset(inputs.annotations, dataset).values()]
    if dataset in inputs.ground_truth:
        lists.insert(0, inputs.ground_truth[dataset])
    if not lists:
        return {}
    images = coco_images(lists[0])
    return {number: images[number] for number in evenly_spread(sorted(images), inputs.images)}


def evenly_spread(ids: Sequence[int], count: int) -> list[int]:
    """Return ``count`` ids from evenly spread positions, or all if there are fewer."""
    count = min(count, len(ids))
    return [ids[(2 * number + 1) * len(ids) // (2 * count)] for number in range(count)]


def _proposals(
    inputs: Inputs, dataset: str, vectors: Mapping[tuple[str, str], Stored]
) -> list[Proposals]:
    """Return the proposals of the dataset's pseudo-masks, with the settings stored in them."""
    found = []
    for name, path in of_dataset(inputs.annotations, dataset).items():
        method = method_of(_info(path))
        if method is not None:
            stored = {key[1]: of.images for key, of in vectors.items() if key[0] == name}
            found.append(Proposals(name, method, stored))
    return found


def _info(path: Path) -> dict[str, Any]:
    for record in read_coco(path, _LISTED, only=("info",), quiet=True):
        if isinstance(record, Section) and isinstance(record.content, dict):
            return record.content
    return {}


def _layers(inputs: Inputs, dataset: str, images: Mapping[int, ListedImage]) -> list[Layer]:
    sizes = {number: image.size for number, image in images.items()}
    layers = [
        Layer(name, "masks", path, best_records(path, sizes))
        for name, path in of_dataset(inputs.annotations, dataset).items()
    ]
    layers += [
        Layer(
            name,
            "detections",
            path,
            best_records(path, sizes, score_threshold=inputs.score_threshold),
        )
        for name, path in of_dataset(inputs.predictions, dataset).items()
    ]
    if dataset in inputs.ground_truth:
        layers.append(truth_layer(inputs, dataset, sizes))
    return layers


def _heat_maps(vectors: Mapping[tuple[str, str], Stored]) -> dict[str, Vectors]:
    """Return the heat maps to draw: title -> image id -> (h, w).

    Titles name the backbone, with the method and the number of the vector if there are several.
    """
    several = len({method for method, _ in vectors}) > 1
    titled: dict[str, Vectors] = {}
    for (method, backbone), stored in vectors.items():
        name = f"{backbone} for {method}" if several else backbone
        k = max((len(maps) for maps in stored.images.values()), default=0)
        for number, title in enumerate(stored.kind(k).titles(name)):
            maps = {image_id: maps[number] for image_id, maps in stored.images.items()}
            # Where cutting ended earlier, the maps are 0.
            titled[title] = {image_id: map_ for image_id, map_ in maps.items() if map_.any()}
    return titled


def _vectors(folder: Path, images: Collection[int]) -> Stored:
    """Read the eigenvectors of some images from the shards that have them."""
    from cuvler.eigenvectors.store import open_eigenvectors

    found: dict[int, NDArray[np.float32]] = {}
    kind: type[Need] = Eigenvectors
    for path in sorted(folder.glob("*.zarr.zip")):
        with open_eigenvectors(path) as store:
            kind = NEEDS[store.attributes.get("problem", kind.problem)]
            for index, image_id in enumerate(store.image_ids.tolist()):
                if image_id in images and store.status[index] == ImageStatus.OK:
                    found[image_id] = store.vector(index)
    return Stored(kind, found)
