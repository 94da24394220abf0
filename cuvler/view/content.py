"""What a COCO json has: its images, how many records of each, and the images left out."""

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cuvler.coco import Annotation, Category, Image, Item, Needs, Section, read_coco
from cuvler.coco.stream import RESULTS, stream_file
from cuvler.coco.values import shown
from cuvler.errors import DataError
from cuvler.image_status import USABLE
from cuvler.listing import ListedImage, listed_images, read_listing
from cuvler.report.records import evenly_spread

_ANNOTATIONS = Needs(file_names=True, raw=True)
_RESULTS = Needs(format="results", listed=False, raw=True)
_SCORES = 0.3  # Smallest score of results that is shown, unless another one is asked for.


@dataclass
class Content:
    """Images and numbers of records of COCO annotations, pseudo-masks or results.

    Attributes:
        path: the file.
        is_results: the file is COCO results, which do not name their images.
        score_threshold: records with lower scores are not counted.
        images: the images by id.
        counts: number of records by image id, without crowds.
        classes: names of the categories by id.
        left_out: file name and status of the images that could not be used.
        info: the settings that made the file.
    """

    path: Path
    is_results: bool
    score_threshold: float
    images: dict[int, ListedImage] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    classes: dict[int, str] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What the records are called, in the plural."""
        return "detections" if self.is_results else "masks"


def read_content(
    path: Path,
    *,
    ground_truth: Path | None = None,
    listing: Path | None = None,
    score_threshold: float | None = None,
    each: Callable[[Annotation], object] = lambda record: None,
) -> Content:
    """Read what a COCO json has, record by record; memory grows with the number of images.

    Args:
        path: COCO annotations, pseudo-masks (merged, or of one shard), or COCO results.
        ground_truth: a COCO json that names the images of results.
        listing: a listing that names the images of results, instead.
        score_threshold: by default 0.3 for results, and 0 for annotations.
        each: called with every record, in the file's order.

    Raises:
        DataError: a file is missing or damaged or breaks a rule of
            :func:`cuvler.coco.read_coco`, nothing names the images of results, or what does is of
            other images.
    """
    is_results = next(stream_file(path), ("images", None))[0] == RESULTS
    threshold = (_SCORES if is_results else 0.0) if score_threshold is None else score_threshold
    content = Content(path, is_results, threshold)
    if not is_results:
        _read_annotations(content, each)
    elif ground_truth:
        _read_images(content, ground_truth)
        _read_results(content, ground_truth, each)
    elif listing:
        content.images = {row.image_id: row for row in listed_images(read_listing(listing))}
        _read_results(content, listing, each)
    else:
        raise DataError(
            f"{path}: COCO results do not name their images; give the ground truth or the listing "
            "that they were made with",
            parameter="listing",
        )
    return content


def choose(
    content: Content, count: int, *, names: Sequence[str] = (), seed: int | None = None
) -> dict[int, ListedImage]:
    """Choose the images to show.

    Args:
        content: of the file.
        count: number of images.
        names: choose among images of these names, with or without their folders, or with ``*``
            and ``?`` as in a shell.
        seed: choose at random; without it, images are spread evenly over the ids.

    Returns:
        The images by id, ascending.

    Raises:
        DataError: no image has one of the names.
    """
    found = set().union(*(_matching(content, name) for name in names)) if names else content.images
    ids = sorted(found)
    if seed is None:
        ids = evenly_spread(ids, count)
    else:
        ids = sorted(random.Random(seed).sample(ids, min(count, len(ids))))  # noqa: S311
    return {number: content.images[number] for number in ids}


def _matching(content: Content, pattern: str) -> Collection[int]:
    found = [
        number
        for number, image in content.images.items()
        for name in (image.file_name, image.file_name.rpartition("/")[2])
        if name == pattern or fnmatchcase(name, pattern)
    ]
    if not found:
        some = ", ".join(image.file_name for image in list(content.images.values())[:3])
        raise DataError(f"{content.path}: no image is named {pattern!r}; its first ones are {some}")
    return found


def _read_annotations(content: Content, each: Callable[[Annotation], object]) -> None:
    for item in read_coco(content.path, _ANNOTATIONS):
        match item:
            case Annotation():
                _count(content, item)
                each(item)
            case Section("excluded", {"file_name": name, "status": status}):
                content.left_out.append((str(name), str(status)))
            case Section("excluded", other):
                raise DataError(f"{content.path}: 'excluded' has {shown(other)}, without a status")
            case Section("info", {} as info):
                content.info = info
            case _:
                _add(content, item)


def _read_images(content: Content, ground_truth: Path) -> None:
    for item in read_coco(ground_truth, _ANNOTATIONS, only=("images", "categories"), quiet=True):
        _add(content, item)


def _add(content: Content, item: Item) -> None:
    """Add an image or a category."""
    if isinstance(item, Category):
        content.classes[item.id] = item.name
    elif isinstance(item, Image):
        status = item.raw.get("status")
        if status is not None and status not in USABLE:  # of a shard
            content.left_out.append((str(item.file_name), str(status)))
        else:
            content.images[item.id] = ListedImage(item.id, str(item.file_name), item.size)


def _read_results(content: Content, names: Path, each: Callable[[Annotation], object]) -> None:
    sizes = {number: image.size for number, image in content.images.items()}
    unknown = set()
    for item in read_coco(content.path, _RESULTS, sizes=sizes):
        if isinstance(item, Annotation):
            _count(content, item)
            each(item)
            unknown |= {item.image_id} - sizes.keys()
    if unknown:
        some = ", ".join(map(str, sorted(unknown)[:5]))
        raise DataError(
            f"{content.path}: has {len(unknown)} images that {names} does not name (ids {some}); "
            "are they of the same dataset?"
        )


def _count(content: Content, record: Annotation) -> None:
    if not record.iscrowd and (record.score is None or record.score >= content.score_threshold):
        content.counts[record.image_id] += 1
