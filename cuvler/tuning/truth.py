"""Scoring masks of a few images by a COCO json that has them and perhaps many others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Annotation, Needs, read_coco
from cuvler.errors import DataError
from cuvler.evaluation import evaluate
from cuvler.evaluation.compact import IouType
from cuvler.image_files import ImageFile
from cuvler.images import Size
from cuvler.listing import ListedImage
from cuvler.logs import quiet
from cuvler.masks import decode, encode, geometry
from cuvler.pseudo_masks import PseudoMask
from cuvler.report.records import coco_images

_RAW = Needs(listed=False, raw=True)


@dataclass(frozen=True)
class Score:
    """Average precision in percent; None if the images have no objects."""

    ap: float | None
    ap50: float | None


class Truth:
    """The ground truth of some images.

    Args:
        path: a COCO json.
        files: the images, each of which the json must name.

    Attributes:
        path: the json.
        images: the images by their path.
        iou_type: masks if all objects have them, else boxes.

    Raises:
        DataError: the json is invalid, or does not name an image.
    """

    def __init__(self, path: Path, files: Sequence[ImageFile]) -> None:
        self.path = path
        known = coco_images(path)
        self.images = {file.path: _find(file, known, path) for file in files}
        ids = {image.image_id for image in self.images.values()}
        self.records: dict[int, list[Annotation]] = {number: [] for number in ids}
        sizes = {number: image.size for number, image in known.items()}
        for record in read_coco(path, _RAW, only=("annotations",), sizes=sizes, quiet=True):
            if isinstance(record, Annotation) and record.image_id in ids:
                self.records[record.image_id].append(record)
        everything = [record for records in self.records.values() for record in records]
        has_masks = all(record.segmentation is not None for record in everything)
        self.iou_type: IouType = "segm" if has_masks else "bbox"

    @property
    def sizes(self) -> dict[Path, Size | None]:
        """(width, height) by path, as the json states them."""
        return {path: image.size for path, image in self.images.items()}

    def masks(self, path: Path, size: tuple[int, int]) -> list[NDArray[np.bool_]]:
        """Return the objects of an image as masks of its (width, height), for drawing."""
        records = self.records[self.images[path].image_id]
        return [decode(r._replace(size=size).rle()) for r in records if not r.iscrowd]

    def score(self, masks: Mapping[Path, Iterable[dict[str, Any]]]) -> Score:
        """Score the masks of some of the images, from :func:`result_records`."""
        chosen = [self.images[path] for path in masks]
        content = {
            "images": [_image_record(image) for image in chosen],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [r.raw for image in chosen for r in self.records[image.image_id]],
        }
        results = [
            record | {"image_id": self.images[path].image_id}
            for path, records in masks.items()
            for record in records
        ]
        if not content["annotations"]:
            return Score(None, None)
        with quiet("cuvler.evaluation"):
            found = evaluate(content, results, iou_type=self.iou_type)
        return Score(found["AP"], found["AP50"])


def result_records(masks: Iterable[PseudoMask]) -> list[dict[str, Any]]:
    """Return masks as COCO results, without an image id."""
    rles = [(encode(mask.mask), mask.score) for mask in masks]
    return [
        {"category_id": 1, "score": score, "segmentation": rle, "bbox": geometry(rle)["bbox"]}
        for rle, score in rles
    ]


def _image_record(image: ListedImage) -> dict[str, Any]:
    record: dict[str, Any] = {"id": image.image_id, "file_name": image.file_name}
    if image.size is not None:
        record |= zip(("width", "height"), image.size, strict=True)
    return record


def _find(file: ImageFile, known: Mapping[int, ListedImage], path: Path) -> ListedImage:
    """Find an image by its name: the longest file name that its path ends with, or the last part.

    File names are relative to an image root that is not given.
    """
    parts = file.path.absolute().parts
    ends = {number: PurePosixPath(image.file_name).parts for number, image in known.items()}
    whole = [number for number, end in ends.items() if parts[-len(end) :] == end]
    longest = max((len(ends[number]) for number in whole), default=0)
    found = [number for number in whole if len(ends[number]) == longest]
    found = found or [number for number, end in ends.items() if end[-1:] == parts[-1:]]
    if len(found) == 1:
        return known[found[0]]
    some = ", ".join(known[number].file_name for number in (found or list(known))[:3])
    if found:
        raise DataError(
            f"{path}: {len(found)} images can be {file.path}: {some}; give it in the folder that "
            "its file_name has",
            parameter="ground_truth",
        )
    raise DataError(
        f"{path}: has no image {file.path.name}; its first ones are {some or 'none'}",
        parameter="ground_truth",
    )
