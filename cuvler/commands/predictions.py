"""``cuvler predictions``: run a detector over a dataset."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.extras import require_extra

logger = logging.getLogger(__name__)


@click.command("predictions")
@options.detector()
@options.listing("Listing (.parquet) or COCO json.")
@options.image_root()
@options.max_pixels()
@options.allow_outside()
@options.output("The COCO results json to write.")
@options.batch_size(8)
@options.score_threshold(0.0)
@options.detections_per_image(
    "Largest number of predictions per image.  [default: the detector config's]"
)
@options.num_gpus()
@options.workers("Image-reading processes per GPU.", 4)
@options.max_failed("Largest fraction of images that may be missing or unreadable.")
@options.tta()
@options.detector_config()
@options.unpickle_sha256()
def command(
    detector: Path,
    listing: Path,
    image_root: Path,
    output: Path,
    batch_size: int,
    score_threshold: float,
    detections_per_image: int | None,
    num_gpus: int | None,
    workers: int,
    max_failed: float,
    tta: bool,
    detector_config: str | None,
    unpickle_sha256: str,
) -> None:
    """Run a detector over a dataset's images and write COCO results."""
    require_extra("detector")
    from cuvler.gpus import hold_gpus
    from cuvler.predictions import Options, predict_dataset, prediction_devices

    with hold_gpus(1 if num_gpus is None else num_gpus):
        summary = predict_dataset(
            detector,
            listing,
            image_root,
            output,
            devices=prediction_devices(num_gpus),
            options=Options(
                batch_size=batch_size,
                score_threshold=score_threshold,
                detections_per_image=detections_per_image,
                workers=workers,
                tta=tta,
                detector_config=detector_config,
                unpickle_sha256=unpickle_sha256,
                max_failed=max_failed,
            ),
        )
    logger.info(
        "%d predictions in %d images, %d images left out",
        summary.predictions,
        summary.images,
        len(summary.failed),
    )
