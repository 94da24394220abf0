"""Pictures of an image with what is drawn over it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.coco import Annotation
from cuvler.drawing import draw_heat_map, draw_masks
from cuvler.errors import DataError, ImageError
from cuvler.image_access import image_path
from cuvler.images import Size, open_image
from cuvler.listing import ListedImage
from cuvler.masks import decode
from cuvler.report.inputs import SIDE

Vectors = Mapping[int, NDArray[np.float32]]  # by image id


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


class Overlay(Protocol):
    """What is drawn over an image."""

    def panel(
        self, image_id: int, file_name: str, picture: Image.Image, size: Size
    ) -> Panel | None:
        """Draw over one image; ``size`` is its original (width, height). None for no panel."""


def make_card(
    image_root: Path,
    listed: ListedImage,
    layers: Sequence[Overlay],
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
