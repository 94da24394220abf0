"""Run a detector over a dataset, on one or several devices."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvler.devices import check_gpus, count_gpus
from cuvler.files import StrPath, full_disk_named
from cuvler.listing import ListedImage
from cuvler.predictions.parts import (
    Summary,
    join_parts,
    predict_images,
    read_images,
    split_images,
)


@dataclass(frozen=True)
class Options:
    """Prediction settings.

    Attributes:
        batch_size: maximum number of images per forward pass.
        score_threshold: minimum score of a prediction.
        detections_per_image: maximum number of predictions per image; ``None`` keeps the
            detector's setting.
        workers: number of image-loading processes per device.
        tta: test-time augmentation; see :func:`cuvler.detector.load_detector`.
        detector_config: for weights without a ``config.yaml`` in their folder; see there too.
        unpickle_sha256: for weights in a legacy format; see there too.
        max_failed: maximum share of images without predictions.
    """

    batch_size: int = 8
    score_threshold: float = 0.0
    detections_per_image: int | None = None
    workers: int = 4
    tta: bool = False
    detector_config: str | None = None
    unpickle_sha256: str = ""
    max_failed: float = 1.0


def predict_dataset(
    detector: StrPath,
    listing: StrPath,
    image_root: StrPath,
    output: StrPath,
    *,
    devices: Sequence[str] = ("auto",),
    options: Options | None = None,
) -> Summary:
    """Run a detector over a dataset and write COCO results.

    Each result has ``image_id``, ``category_id``, ``segmentation``, ``bbox`` ([x, y, width,
    height]) and ``score``; see :func:`coco_records`. Coordinates are pixels of the image as
    :func:`cuvler.images.open_image` opens it at the size stated in ``listing`` (upright if none is
    stated). Results are sorted by image, then by descending score. The file is written atomically,
    and memory does not grow with the dataset.

    Args:
        detector: see :func:`cuvler.detector.load_detector`.
        listing: a listing (``.parquet``) or a COCO json with ``images``.
        image_root: the folder that the file names start from.
        output: the results file to write.
        devices: one process runs on each; a single device uses this process.
        options: see :class:`Options`.

    Returns:
        The numbers of images and predictions, and the unreadable images, which are left out and
        logged by name.

    Raises:
        DataError: the detector or the listing cannot be used, no image could be read, or more
            than ``max_failed`` of them could not.
        CuvlerError: one of several processes failed; its message is in the log.
    """
    options = options or Options()
    parts = split_images(read_images(listing), len(devices))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    # In the output's folder: results may be too large for the machine's temporary folder.
    with tempfile.TemporaryDirectory(dir=Path(output).parent, prefix=".predictions.") as folder:
        arguments = (detector, parts, image_root, folder, devices, options)
        if len(devices) == 1:
            _predict_part(0, *arguments)
        else:
            from cuvler.detector.processes import start_processes

            start_processes(_predict_part, len(devices), arguments)
        return join_parts(folder, len(devices), image_root, output, max_failed=options.max_failed)


def prediction_devices(num_gpus: int | None) -> list[str]:
    """Return device names for ``num_gpus`` GPUs: 0 is the CPU, ``None`` one GPU if there is one.

    Raises:
        ConfigError: the machine has fewer GPUs.
    """
    if num_gpus is None:
        num_gpus = min(count_gpus(), 1)
    check_gpus(num_gpus)
    return [f"cuda:{index}" for index in range(num_gpus)] or ["cpu"]


def _predict_part(
    index: int,
    detector: StrPath,
    parts: list[list[ListedImage]],
    image_root: StrPath,
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
    with full_disk_named(Path(folder).parent):
        predict_images(
            loaded,
            parts[index],
            image_root,
            folder,
            index,
            batch_size=options.batch_size,
            workers=options.workers,
            score_threshold=options.score_threshold,
        )
