"""The records of COCO's formats, checked, and what a command needs of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from cuvler.coco.segmentations import Polygons, box_rle, compressed, polygons_rle
from cuvler.coco.values import LARGEST, Box, Refused, Size
from cuvler.masks import Rle, geometry

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Image(NamedTuple):
    """An image of a COCO json.

    Attributes:
        id: unique in the file.
        file_name: relative to the image root; None if the file does not say.
        size: (width, height) in pixels, as :func:`cuvler.images.open_image` takes it; None if the
            file does not say.
        raw: the whole record with its values converted, if :attr:`Needs.raw`.
    """

    id: int
    file_name: str | None
    size: Size | None
    raw: Mapping[str, Any]


class Category(NamedTuple):
    """A category; its name is by default its id."""

    id: int
    name: str
    raw: Mapping[str, Any]


class Annotation(NamedTuple):
    """An annotation, or a result.

    Attributes:
        id: None if missing or not a whole number; it may be repeated.
        image_id: of its image.
        size: (width, height) of its image, or of its mask if no image states it; None if unknown.
        category_id: None if missing.
        segmentation: polygons, or RLE, compressed or not; None for a box only.
        pixels: number of the mask's pixels; None for polygons and without a mask.
        bbox: x, y, width and height in pixels; None if only a mask is given.
        area: as stated, in pixels; None if missing or NaN.
        score: None if missing.
        iscrowd: a crowd, which is neither a miss nor a false positive.
        ignore: the same in some data sets; COCO itself does not know it.
        raw: the whole record with its values converted, if :attr:`Needs.raw`.
    """

    id: int | None
    image_id: int
    size: Size | None
    category_id: int | None
    segmentation: Polygons | Mapping[str, Any] | None
    pixels: int | None
    bbox: Box | None
    area: float | None
    score: float | None
    iscrowd: bool
    ignore: bool
    raw: Mapping[str, Any]

    def rle(self) -> Rle:
        """Return the mask as compressed RLE; without a mask, the box as a mask.

        Raises:
            Refused: the size of the image is not known, and polygons or a box need it.
        """
        if self.segmentation is None:
            assert self.bbox is not None  # one of them is always there
            return box_rle(self.bbox, self._known_size())
        if isinstance(self.segmentation, Mapping):
            return compressed(self.segmentation)
        return polygons_rle(self.segmentation, self._known_size())

    def box(self) -> Box:
        """Return the box, by default that of the mask; errors as for :meth:`rle`."""
        if self.bbox is not None:
            return self.bbox
        x, y, width, height = geometry(self.rle())["bbox"]
        return x, y, width, height

    def _known_size(self) -> Size:
        if self.size is None:
            raise Refused(f"image {self.image_id} has no 'width' and 'height', which it needs")
        return self.size


class Section(NamedTuple):
    """A record of another section (``info``, ``licenses``, ``excluded``, ``videos``...)."""

    name: str
    content: Any


Item = Image | Category | Annotation | Section


@dataclass(frozen=True)
class Needs:
    """What a command needs of a file, beyond the rules that hold for all files.

    Attributes:
        format: COCO annotations (an object), results (a list), or either.
        sections: those that must be there, of an object.
        file_names: every image has one.
        sizes: every image states width and height.
        masks: every annotation has a mask.
        scores: every annotation has a score.
        highest_score: scores are from 0 to this; None allows any finite number.
        categories: every annotation has one of the file's categories, of which there are some.
        listed: the images of all annotations are listed.
        inside: boxes do not start outside their image, as those of another size's results do.
        raw: keep the whole record.
        made_here: the file is a stage's output, and can be made again.
    """

    format: Literal["annotations", "results", "either"] = "annotations"
    sections: tuple[str, ...] = ("images", "annotations")
    file_names: bool = False
    sizes: bool = False
    masks: bool = False
    scores: bool = False
    highest_score: float | None = None
    categories: bool = False
    listed: bool = True
    inside: bool = False
    raw: bool = False
    made_here: bool = False

    @property
    def again(self) -> str:
        """The advice at the end of an error, given only for files that can be made again."""
        return "; delete the file and run again to recreate it" if self.made_here else ""

    @property
    def score_limits(self) -> tuple[float, float]:
        """Lowest and highest score."""
        return (-LARGEST, LARGEST) if self.highest_score is None else (0.0, self.highest_score)
