"""Predict a dataset in parts, one per process, and join the parts into one results file.

A part is two files: ``{index}.jsonl`` has one record per line, ``{index}.json`` the summary.
Memory does not grow with the number of images.
"""

import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset

from cuvler.annotations import require_usable
from cuvler.errors import DataError, ImageError
from cuvler.files import StrPath, atomic_path, read_json, write_json
from cuvler.image_access import image_path
from cuvler.listing import ListedImage, list_images, listed_images, read_listing
from cuvler.loading import noticing_dead_loaders
from cuvler.predictions.coco_results import coco_records
from cuvler.progress import Progress

if TYPE_CHECKING:
    from cuvler.detector import Detector

logger = logging.getLogger(__name__)

# Number of loaded batches within which images are grouped by shape.
_WINDOW = 4


@dataclass
class Summary:
    """Counts of images and predictions, and the images that failed.

    Attributes:
        images: number of images requested.
        predictions: number of predictions written.
        failed: (file name, status, reason) of each image without predictions.
    """

    images: int = 0
    predictions: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)


def read_images(path: StrPath) -> list[ListedImage]:
    """Read a dataset's images, sorted by id.

    Args:
        path: a listing (``.parquet``) or a COCO json with ``images``.

    Raises:
        DataError: the file is neither.
    """
    is_listing = str(path).endswith(".parquet")
    return listed_images(
        read_listing(path) if is_listing else list_images("", ground_truth=path, ids="ground_truth")
    )


def split_images(rows: list[ListedImage], count: int) -> list[list[ListedImage]]:
    """Split into ``count`` consecutive parts of nearly equal length."""
    bounds = [len(rows) * index // count for index in range(count + 1)]
    return [rows[start:end] for start, end in itertools.pairwise(bounds)]


def predict_images(
    detector: "Detector",
    rows: list[ListedImage],
    image_root: StrPath,
    folder: StrPath,
    index: int,
    *,
    batch_size: int,
    workers: int,
    score_threshold: float = 0.0,
    show: bool = True,
) -> None:
    """Predict one part's images and write its two files, for :func:`join_parts`.

    Args:
        detector: a loaded detector.
        rows: the part's images.
        image_root: the folder that the file names start from.
        folder: where the parts are written.
        index: number of this part, from 0.
        batch_size: see :class:`~cuvler.predictions.Options`.
        workers: see :class:`~cuvler.predictions.Options`.
        score_threshold: see :class:`~cuvler.predictions.Options`.
        show: whether part 0 shows its progress.
    """
    summary = Summary(images=len(rows))
    batches = DataLoader(
        _Images(rows, Path(image_root), detector.input_sides),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
    )
    progress = Progress(len(rows), show=show and index == 0)
    path = Path(folder, f"{index}.jsonl")
    with path.open("w", encoding="utf-8") as stream, progress, noticing_dead_loaders():
        for window in _windows(batches):
            found = _detect(detector, window, batch_size, score_threshold)
            for item in window:
                if isinstance(item.content, tuple):
                    summary.failed.append((item.name, *item.content))
                    continue
                for record in found[item.image_id]:
                    stream.write(json.dumps(record, separators=(",", ":")) + "\n")
                    summary.predictions += 1
            progress.update(len(window))
    write_json(Path(folder, f"{index}.json"), vars(summary))


@dataclass(frozen=True)
class _Item:
    """A loaded image: the detector's input, or (status, reason) if it is unreadable."""

    image_id: int
    name: str
    content: dict[str, Any] | tuple[str, str]


class _Images(Dataset[_Item]):
    def __init__(
        self, rows: list[ListedImage], image_root: Path, sides: tuple[int, int] | None
    ) -> None:
        self.rows = rows
        self.image_root = image_root
        self.sides = sides

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> _Item:
        from cuvler.detector.inference import open_input

        image_id, name, size = self.rows[index]
        try:
            content = open_input(image_path(self.image_root, name), self.sides, size)
            return _Item(image_id, name, content)
        except ImageError as error:
            return _Item(image_id, name, (error.status, str(error)))


def _windows(batches: Iterable[list[_Item]]) -> Iterator[list[_Item]]:
    iterator = iter(batches)
    while window := list(itertools.islice(iterator, _WINDOW)):
        yield list(itertools.chain.from_iterable(window))


def _detect(
    detector: "Detector", items: list[_Item], batch_size: int, score_threshold: float
) -> dict[int, list[dict[str, Any]]]:
    """Run the detector on the readable images; return {image id: records}.

    A batch has images of one shape only: padding would make the predictions of the smaller images
    depend on the rest of the batch.
    """
    if detector.input_sides is None:
        # Test-time augmentation runs image by image, and its masks are as large as the image.
        batch_size = 1
    shapes: dict[tuple[int, ...], list[tuple[int, dict[str, Any]]]] = {}
    for item in items:
        if isinstance(item.content, dict):
            shape = tuple(item.content["image"].shape)
            shapes.setdefault(shape, []).append((item.image_id, item.content))
    found = {}
    for alike in shapes.values():
        for start in range(0, len(alike), batch_size):
            ids, inputs = zip(*alike[start : start + batch_size], strict=True)
            for image_id, instances in zip(ids, detector.detect(inputs), strict=True):
                records = coco_records(image_id, instances, detector.categories, score_threshold)
                found[image_id] = list(records)
    return found


def join_parts(
    folder: StrPath, count: int, image_root: StrPath, output: StrPath, *, max_failed: float
) -> Summary:
    """Join the parts written by :func:`predict_images` into one results file.

    Unreadable images are logged by name.

    Args:
        folder: where the parts are.
        count: number of parts.
        image_root: the folder of the images, for messages.
        output: the results file to write, atomically.
        max_failed: see :class:`~cuvler.predictions.Options`.

    Raises:
        DataError: no image could be read, or more than ``max_failed`` of them could not.
    """
    summary = _total(folder, count)
    for name, status, reason in summary.failed:
        logger.warning("%s: left out, %s: %s", name, status, reason)
    if summary.images and len(summary.failed) == summary.images:
        raise DataError(f"{image_root}: none of the {summary.images} images could be read")
    failed = [(name, status) for name, status, _ in summary.failed]
    require_usable(failed, summary.images, max_failed)
    _join_records(folder, count, output)
    return summary


def _total(folder: StrPath, count: int) -> Summary:
    total = Summary()
    for index in range(count):
        part = read_json(Path(folder, f"{index}.json"))
        total.images += part["images"]
        total.predictions += part["predictions"]
        total.failed += [tuple(entry) for entry in part["failed"]]
    return total


def _join_records(folder: StrPath, count: int, output: StrPath) -> None:
    """Write the records of all parts as one JSON list."""
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8") as stream:
        separator = "["
        for index in range(count):
            with Path(folder, f"{index}.jsonl").open(encoding="utf-8") as lines:
                for line in lines:
                    stream.write(separator + line.rstrip("\n"))
                    separator = ",\n"
        stream.write("[]\n" if separator == "[" else "]\n")
