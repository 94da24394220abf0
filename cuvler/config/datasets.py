"""Datasets: their entries in the config, and the resolved form that rules use."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, model_validator

from cuvler.config.fields import Count, PathText, Section, Shards, Text

# They make ground truth of official files.
_MAKES_GROUND_TRUTH = ("format", "image_lists", "extra_ground_truth")


class DatasetEntry(Section):
    """A dataset in the long form."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {key: ["ground_truth"] for key in _MAKES_GROUND_TRUTH}
        }
    )

    images: PathText
    """The folder that file names start from."""
    title: Text | None = None
    """The name in tables; by default the name in the config."""
    ground_truth: PathText | tuple[PathText, ...] | None = None
    """A COCO json: ground truth, and the list of images. Or what ground truth is made of: official
    files or folders of them, one path or a list."""
    format: Literal["coco", "youtube_vis", "voc", "imagenet", "kitti", "open_images"] | None = None
    """The format of the official annotations, of which class-agnostic ground truth is made when it
    is needed: results/ground_truth/{dataset}.json. coco is also the format of LVIS, Objects365 and
    UVO's frames, youtube_vis of UVO's videos."""
    image_lists: tuple[PathText, ...] = ()
    """Text files that name the images to keep, one a line."""
    extra_ground_truth: tuple[PathText, ...] = ()
    """COCO json files of objects that the official annotations leave out (COCO*)."""
    ids: Literal["order", "digits", "ground_truth"] | None = None
    """Source of image ids: order numbers the images, digits takes the digits of the file name,
    ground_truth the ids of the COCO json. Default: ground_truth if the dataset has one, else
    order."""
    shards: Shards | None = None
    """Number of jobs for the dataset; by default images.shards."""
    masks: bool = True
    """false: the ground truth is boxes, and only boxes are scored."""
    detections_per_image: Count | None = None
    """Detections predicted in each image (DETECTIONS_PER_IMAGE); by default max_detections, or
    else as the detector config says."""
    max_detections: Count | None = None
    """Detections of each image that are scored (COCO's maxDets), the best first; by default 100."""
    predictions: PathText | None = None
    """COCO results of a detector trained elsewhere, with the ids of this dataset's images.
    Self-training on this dataset starts from them, and round 0 is not trained."""
    source: str = ""
    """Where to get the dataset."""

    @model_validator(mode="after")
    def _needs_ground_truth(self) -> Self:
        given = [key for key in _MAKES_GROUND_TRUTH if getattr(self, key)]
        if given and not self.ground_truth:
            raise ValueError(f"{given[0]} needs ground_truth: the official files")
        return self


@dataclass(frozen=True)
class GroundTruthSources:
    """The sources of a dataset's class-agnostic ground truth (``cuvler.ground_truth``).

    Lists of files or folders; ``format`` is a key of ``cuvler.ground_truth.FORMATS``, ``ids``
    one of ``order`` and ``digits``.
    """

    official: list[Path]
    format: str
    image_lists: list[Path]
    extra: list[Path]
    ids: str

    @property
    def files(self) -> list[Path]:
        """Everything it is made of."""
        return [*self.official, *self.image_lists, *self.extra]


@dataclass(frozen=True)
class Dataset:
    """A dataset as the rules need it: where its images are, and how they are split into jobs.

    Attributes:
        name: its key in the config.
        title: its name in tables.
        images: the folder that file names start from.
        ground_truth: a COCO json, the user's own or the one that is to be made; or None.
        made_from: the sources of ground truth that a rule makes; None if a file is used unchanged.
        ids: where image ids come from: ``order``, ``digits`` or ``ground_truth``.
        shards: how many jobs it is split into.
        masks: whether masks are scored, and not only boxes.
        detections_per_image: how many are predicted; None leaves it to the detector.
        max_detections: how many of them are scored; None leaves it at COCO's 100.
        predictions: COCO results that self-training starts from, of a detector trained elsewhere.
        source: where to get it; may be empty.
    """

    name: str
    title: str
    images: Path
    ground_truth: Path | None
    made_from: GroundTruthSources | None
    ids: str
    shards: int
    masks: bool
    detections_per_image: int | None
    max_detections: int | None
    predictions: Path | None
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
    made_from = _sources(entry, base)
    ids: str = "ground_truth"
    ground_truth: Path | None = made
    if made_from is None:
        ids = entry.ids or ("ground_truth" if entry.ground_truth else "order")
        ground_truth = base / expand(str(entry.ground_truth)) if entry.ground_truth else None
    return Dataset(
        name=name,
        title=entry.title or name,
        images=base / expand(entry.images),
        ground_truth=ground_truth,
        made_from=made_from,
        ids=ids,
        shards=entry.shards or shards,
        masks=entry.masks,
        # What is to be scored must have been predicted.
        detections_per_image=entry.detections_per_image or entry.max_detections,
        max_detections=entry.max_detections,
        predictions=base / expand(entry.predictions) if entry.predictions else None,
        source=entry.source,
    )


def _long_form(path: str) -> DatasetEntry:
    if path.lower().endswith(".json"):
        return DatasetEntry(images=str(Path(path).parent), ground_truth=path)
    return DatasetEntry(images=path)


def _sources(entry: DatasetEntry, root: Path) -> GroundTruthSources | None:
    """Return the sources of the ground truth; None for a COCO json that is used unchanged."""
    official = entry.ground_truth
    if not isinstance(official, tuple):
        if not any(getattr(entry, key) for key in _MAKES_GROUND_TRUTH):
            return None
        official = (str(official),)
    lists = (official, entry.image_lists, entry.extra_ground_truth)
    files, image_lists, extra = ([root / expand(path) for path in paths] for paths in lists)
    ids = "digits" if entry.ids == "digits" else "order"
    return GroundTruthSources(files, entry.format or "coco", image_lists, extra, ids)


def expand(path: str) -> Path:
    """Fill in ``~`` and environment variables (``$DETECTRON2_DATASETS``)."""
    return Path(os.path.expandvars(path)).expanduser()
