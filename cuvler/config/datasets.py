"""Datasets: their entries in the config, and the resolved form that rules use."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, model_validator

from cuvler.config.fields import Count, PathText, Section, Shards, Text

# They make ground truth of other annotations.
_MAKES_GROUND_TRUTH = ("format", "image_lists", "extra_annotations")


class DatasetEntry(Section):
    """A dataset in the long form."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {key: ["annotations"] for key in _MAKES_GROUND_TRUTH}
        }
    )

    images: PathText
    """The folder that file names start from."""
    title: Text | None = None
    """The name in tables; by default the name in the config."""
    annotations: PathText | tuple[PathText, ...] | None = None
    """A COCO json: ground truth, and the list of images. Or what ground truth is made of: official
    files or folders of them, one path or a list."""
    format: Literal["coco", "youtube_vis", "voc", "imagenet", "kitti", "open_images"] | None = None
    """The format of the official annotations, of which class-agnostic ground truth is made when it
    is needed: results/ground_truth/{dataset}.json. coco is also the format of LVIS, Objects365 and
    UVO's frames, youtube_vis of UVO's videos."""
    image_lists: tuple[PathText, ...] = ()
    """Text files that name the images to keep, one a line."""
    extra_annotations: tuple[PathText, ...] = ()
    """COCO json files of objects that the official annotations leave out (COCO*)."""
    ids: Literal["order", "digits", "annotations"] | None = None
    """Source of image ids: order numbers the images, digits takes the digits of the file name,
    annotations the ids of the COCO json. Default: annotations if the dataset has some, else
    order."""
    shards: Shards | None = None
    """Number of jobs for the dataset; by default images.shards."""
    masks: bool = True
    """false: the annotations are boxes, and only boxes are scored."""
    detections_per_image: Count | None = None
    """Detections predicted in each image (DETECTIONS_PER_IMAGE); by default max_detections, or
    else as the detector config says."""
    max_detections: Count | None = None
    """Detections of each image that are scored (COCO's maxDets), the best first; by default 100."""
    source: str = ""
    """Where to get the dataset."""

    @model_validator(mode="after")
    def _needs_annotations(self) -> Self:
        given = [key for key in _MAKES_GROUND_TRUTH if getattr(self, key)]
        if given and not self.annotations:
            raise ValueError(f"{given[0]} needs annotations: the official files")
        return self


@dataclass(frozen=True)
class GroundTruth:
    """The sources of a dataset's class-agnostic ground truth (``cuvler.ground_truth``).

    Lists of files or folders; ``format`` is a key of ``cuvler.ground_truth.FORMATS``, ``ids``
    one of ``order`` and ``digits``.
    """

    annotations: list[Path]
    format: str
    image_lists: list[Path]
    extra_annotations: list[Path]
    ids: str

    @property
    def files(self) -> list[Path]:
        """Everything it is made of."""
        return [*self.annotations, *self.image_lists, *self.extra_annotations]


@dataclass(frozen=True)
class Dataset:
    """A dataset as the rules need it: where its images are, and how they are split into jobs.

    Attributes:
        name: its key in the config.
        title: its name in tables.
        images: the folder that file names start from.
        annotations: a COCO json, the user's own or the one that is to be made; or None.
        ground_truth: what ``annotations`` is made of, where it is not used as it is.
        ids: where image ids come from: ``order``, ``digits`` or ``annotations``.
        shards: how many jobs it is split into.
        masks: whether masks are scored, and not only boxes.
        detections_per_image: how many are predicted; None leaves it to the detector.
        max_detections: how many of them are scored; None leaves it at COCO's 100.
        source: where to get it; may be empty.
    """

    name: str
    title: str
    images: Path
    annotations: Path | None
    ground_truth: GroundTruth | None
    ids: str
    shards: int
    masks: bool
    detections_per_image: int | None
    max_detections: int | None
    source: str


def resolve(name: str, entry: str | DatasetEntry, *, root: str, made: Path, shards: int) -> Dataset:
    """Fill in what an entry leaves out.

    Args:
        name: of the dataset.
        entry: the long form, or the path of a folder of images or a COCO json.
        root: where relative paths start.
        made: where ground truth is written, if it is made.
        shards: of entries that do not say.
    """
    if isinstance(entry, str):
        entry = _long_form(entry)
    base = expand(root)
    ground_truth = _ground_truth(entry, base)
    ids: str = "annotations"
    annotations: Path | None = made
    if ground_truth is None:
        ids = entry.ids or ("annotations" if entry.annotations else "order")
        annotations = base / expand(str(entry.annotations)) if entry.annotations else None
    return Dataset(
        name=name,
        title=entry.title or name,
        images=base / expand(entry.images),
        annotations=annotations,
        ground_truth=ground_truth,
        ids=ids,
        shards=entry.shards or shards,
        masks=entry.masks,
        # What is to be scored must have been predicted.
        detections_per_image=entry.detections_per_image or entry.max_detections,
        max_detections=entry.max_detections,
        source=entry.source,
    )


def _long_form(path: str) -> DatasetEntry:
    if path.lower().endswith(".json"):
        return DatasetEntry(images=str(Path(path).parent), annotations=path)
    return DatasetEntry(images=path)


def _ground_truth(entry: DatasetEntry, root: Path) -> GroundTruth | None:
    """Return the sources of the ground truth; None for a COCO json that is used unchanged."""
    annotations = entry.annotations
    if not isinstance(annotations, tuple):
        if not any(getattr(entry, key) for key in _MAKES_GROUND_TRUTH):
            return None
        annotations = (str(annotations),)
    lists = (annotations, entry.image_lists, entry.extra_annotations)
    files, image_lists, extra = ([root / expand(path) for path in paths] for paths in lists)
    ids = "digits" if entry.ids == "digits" else "order"
    return GroundTruth(files, entry.format or "coco", image_lists, extra, ids)


def expand(path: str) -> Path:
    """Fill in ``~`` and environment variables (``$DETECTRON2_DATASETS``)."""
    return Path(os.path.expandvars(path)).expanduser()
