"""Predictions: a detector over a dataset, as one COCO results file."""

import itertools
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from cuvler import masks
from cuvler.annotations import require_usable
from cuvler.devices import check_gpus
from cuvler.errors import DataError, ImageError
from cuvler.files import atomic_path, read_json, write_json
from cuvler.images import open_image
from cuvler.listing import ListedImage, list_images, listed_images, read_listing
from cuvler.progress import Progress

if TYPE_CHECKING:
    from detectron2.structures import Instances

    from cuvler.detector import Detector

log = logging.getLogger(__name__)

# Batches that are looked through for images of one shape.
_WINDOW = 4


@dataclass(frozen=True)
class Options:
    """How predictions are made.

    Attributes:
        batch_size: images in one forward pass.
        score_threshold: predictions under it are left out.
        detections_per_image: at most so many an image; ``None`` keeps the detector's setting.
        workers: processes that read images, for each GPU.
        tta: test-time augmentation; see :func:`cuvler.detector.load_detector`.
        detector_config: of weights without a ``config.yaml`` in their folder; see there too.
        unpickle_sha256: of weights in a legacy format; see there too.
        max_failed: the largest share of images without predictions that is accepted.
    """

    batch_size: int = 8
    score_threshold: float = 0.0
    detections_per_image: int | None = None
    workers: int = 4
    tta: bool = False
    detector_config: str | None = None
    unpickle_sha256: str = ""
    max_failed: float = 1.0


@dataclass
class Summary:
    """What became of the images.

    Attributes:
        images: how many were asked for.
        predictions: how many predictions were written.
        failed: (file name, status, reason) of each image that was left out.
    """

    images: int = 0
    predictions: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)


def predict_dataset(
    detector: str | os.PathLike[str],
    images: str | os.PathLike[str],
    root: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    devices: Sequence[str] = ("auto",),
    options: Options | None = None,
) -> Summary:
    """Run a detector over a dataset and write COCO results.

    The results, ``image_id``, ``category_id``, ``segmentation``, ``bbox`` ([x, y, width, height])
    and ``score``, are in the pixels of the image as :func:`cuvler.images.open_image` opens it
    by the size that ``images`` state (upright where they state none), by image and best
    first within an image; see :func:`coco_records`. They are written as they come: memory does
    not grow with the dataset.
    The file is whole or not there.

    Args:
        detector: see :func:`cuvler.detector.load_detector`.
        images: a listing (``.parquet``) or a COCO json with ``images``.
        root: the folder that the file names start from.
        output: the results file to write.
        devices: one process is run on each; with one device, in this process.
        options: see :class:`Options`.

    Returns:
        What became of the images. Unreadable ones are left out and logged by name.

    Raises:
        DataError: the detector or the listing cannot be used, no image could be read, or more
            could not than ``max_failed`` allows.
        CuvlerError: the same in one of several processes; it has said so in the log.
    """
    options = options or Options()
    parts = split_images(read_images(images), len(devices))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    # Beside the output: a dataset's results may outgrow the machine's temporary folder.
    with tempfile.TemporaryDirectory(dir=Path(output).parent, prefix=".predictions.") as folder:
        arguments = (detector, parts, root, folder, devices, options)
        if len(devices) == 1:
            _predict_part(0, *arguments)
        else:
            from cuvler.detector.processes import start_processes

            start_processes(_predict_part, len(devices), arguments)
        return join_parts(folder, len(devices), root, output, max_failed=options.max_failed)


def join_parts(
    folder: str | os.PathLike[str],
    count: int,
    root: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    max_failed: float,
) -> Summary:
    """Write the parts of :func:`predict_images` as one results file.

    Args:
        folder: where the parts are.
        count: how many there are.
        root: the images' folder.
        output: the results file to write.
        max_failed: see :class:`Options`.

    Raises:
        DataError: no image could be read, or more could not than ``max_failed`` allows.
    """
    summary = _add_up(folder, count)
    for name, status, reason in summary.failed:
        log.warning("%s: left out, %s: %s", name, status, reason)
    if summary.images and len(summary.failed) == summary.images:
        raise DataError(f"{root}: none of the {summary.images} images could be read")
    failed = [(name, status) for name, status, _ in summary.failed]
    require_usable(failed, summary.images, max_failed)
    _join(folder, count, output)
    return summary


def prediction_devices(num_gpus: int | None) -> list[str]:
    """Name the devices of ``num_gpus`` GPUs; 0 is the CPU, ``None`` one GPU if there is one.

    Raises:
        ConfigError: there are not so many.
    """
    if num_gpus is None:
        num_gpus = min(torch.cuda.device_count(), 1)
    check_gpus(num_gpus)
    return [f"cuda:{index}" for index in range(num_gpus)] or ["cpu"]


def read_images(path: str | os.PathLike[str]) -> list[ListedImage]:
    """Read a dataset's images, by ascending id.

    Args:
        path: a listing (``.parquet``) or a COCO json with ``images``.

    Raises:
        DataError: it is neither.
    """
    is_listing = str(path).endswith(".parquet")
    return listed_images(
        read_listing(path) if is_listing else list_images("", annotations=path, ids="annotations")
    )


def split_images(rows: list[ListedImage], count: int) -> list[list[ListedImage]]:
    """Cut into consecutive parts, so that the parts' results in a row are the whole's."""
    bounds = [len(rows) * index // count for index in range(count + 1)]
    return [rows[start:end] for start, end in itertools.pairwise(bounds)]


def _predict_part(
    index: int,
    detector: str | os.PathLike[str],
    parts: list[list[ListedImage]],
    root: str | os.PathLike[str],
    folder: str,
    devices: Sequence[str],
    options: Options,
) -> None:
    from cuvler.detector import load_detector

    loaded = load_detector(
        detector,
        device=devices[index],
        detections_per_image=options.detections_per_image,
        tta=options.tta,
        detector_config=options.detector_config,
        unpickle_sha256=options.unpickle_sha256,
    )
    predict_images(loaded, parts[index], root, folder, index, options=options)


def predict_images(
    detector: "Detector",
    rows: list[ListedImage],
    root: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    index: int,
    *,
    options: Options,
    show: bool = True,
) -> None:
    """Write one part's records, one a line, and its summary, for :func:`join_parts`.

    Args:
        detector: a loaded detector.
        rows: the part's images.
        root: the folder that the file names start from.
        folder: where the parts are written.
        index: of this part, from 0.
        options: ``batch_size``, ``workers`` and ``score_threshold`` count here.
        show: whether the first part says how far it is.
    """
    summary = Summary(images=len(rows))
    batches = DataLoader(
        _Images(rows, Path(root), detector.input_sides),
        batch_size=options.batch_size,
        num_workers=options.workers,
        collate_fn=list,
    )
    progress = Progress(len(rows), show=show and index == 0)
    with Path(folder, f"{index}.jsonl").open("w", encoding="utf-8") as stream, progress:
        for window in _windows(batches):
            found = _detect(detector, window, options.batch_size)
            for item in window:
                if isinstance(item.content, tuple):
                    summary.failed.append((item.name, *item.content))
                    continue
                for record in coco_records(
                    item.image_id,
                    found[item.image_id],
                    detector.categories,
                    options.score_threshold,
                ):
                    stream.write(json.dumps(record, separators=(",", ":")) + "\n")
                    summary.predictions += 1
            progress.update(len(window))
    write_json(Path(folder, f"{index}.json"), vars(summary))


@dataclass(frozen=True)
class _Item:
    """An image on its way to the detector: its input, or (status, reason) where unreadable."""

    image_id: int
    name: str
    content: dict[str, Any] | tuple[str, str]


class _Images(Dataset[_Item]):
    def __init__(self, rows: list[ListedImage], root: Path, sides: tuple[int, int] | None) -> None:
        self.rows = rows
        self.root = root
        self.sides = sides

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> _Item:
        from cuvler.detector.inference import prepare_image

        image_id, name, size = self.rows[index]
        try:
            image = open_image(self.root / name, size)
            return _Item(image_id, name, prepare_image(image, self.sides))
        except ImageError as error:
            return _Item(image_id, name, (error.status, str(error)))


def _windows(batches: Iterable[list[_Item]]) -> Iterator[list[_Item]]:
    iterator = iter(batches)
    while window := list(itertools.islice(iterator, _WINDOW)):
        yield list(itertools.chain.from_iterable(window))


def _detect(detector: "Detector", items: list[_Item], batch_size: int) -> dict[int, "Instances"]:
    """Detect on the readable images; give {image id: predictions}.

    Only images of one shape share a batch: a smaller one would be padded to the largest, and what
    is found in it would depend on its neighbours.
    """
    shapes: dict[tuple[int, ...], list[tuple[int, dict[str, Any]]]] = {}
    for item in items:
        if isinstance(item.content, dict):
            shape = tuple(item.content["image"].shape)
            shapes.setdefault(shape, []).append((item.image_id, item.content))
    found: dict[int, Instances] = {}
    for alike in shapes.values():
        for start in range(0, len(alike), batch_size):
            ids, inputs = zip(*alike[start : start + batch_size], strict=True)
            found.update(zip(ids, detector.detect(inputs), strict=True))
    return found


def coco_records(
    image_id: int,
    instances: "Instances",
    categories: Sequence[tuple[int, str]],
    score_threshold: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Yield an image's predictions as COCO results, best first.

    As in the published results files, ``bbox`` is the box head's estimate, not the mask's extent,
    and a prediction with an empty mask is one of them: boxes and masks are scored apart. Scores
    have all the digits they were compared with.

    Args:
        image_id: the image.
        instances: what :class:`cuvler.detector.Detector` returns; boxes lie within the image.
        categories: (id, name) of the classes 0, 1, ...
        score_threshold: predictions under it are left out.
    """
    for mask, box, score, label in zip(
        instances.pred_masks.numpy(),
        instances.pred_boxes.tensor.numpy(),
        instances.scores.tolist(),
        instances.pred_classes.tolist(),
        strict=True,
    ):
        if score >= score_threshold:
            yield {
                "image_id": image_id,
                "category_id": categories[label][0],
                "segmentation": masks.encode(mask),
                "bbox": _coco_box(box),
                "score": score,
            }


def _coco_box(box: NDArray[np.float32]) -> list[float]:
    """Give x0 y0 x1 y1 as [x, y, width, height], in the fewest digits that mean the same float32.

    As doubles they would have twice the digits, a tenth of the whole file.
    """
    return [float(str(side)) for side in (*box[:2], *(box[2:] - box[:2]))]


def _add_up(folder: str | os.PathLike[str], count: int) -> Summary:
    """Put the parts' summaries into one."""
    whole = Summary()
    for index in range(count):
        part = read_json(Path(folder, f"{index}.json"))
        whole.images += part["images"]
        whole.predictions += part["predictions"]
        whole.failed += [tuple(entry) for entry in part["failed"]]
    return whole


def _join(folder: str | os.PathLike[str], count: int, output: str | os.PathLike[str]) -> None:
    """Put the parts' records into one JSON list."""
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8") as stream:
        separator = "["
        for index in range(count):
            with Path(folder, f"{index}.jsonl").open(encoding="utf-8") as lines:
                for line in lines:
                    stream.write(separator + line.rstrip("\n"))
                    separator = ",\n"
        stream.write("[]\n" if separator == "[" else "]\n")


def as_coco_annotations(
    found: Sequence[tuple[str, tuple[int, int], "Instances"]],
    categories: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    """Give the predictions of a few images as a COCO json of their own.

    Args:
        found: file name, (width, height) and predictions of each image.
        categories: (id, name) of the classes 0, 1, ...

    Returns:
        ``images``, ``categories`` and ``annotations``, which have a ``score``; ids from 1.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, (width, height), instances) in enumerate(found, start=1):
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for record in coco_records(image_id, instances, categories):
            area = masks.geometry(record["segmentation"])["area"]
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, "area": area, **record})
    named = [{"id": category, "name": name} for category, name in categories]
    return {"images": images, "categories": named, "annotations": annotations}
