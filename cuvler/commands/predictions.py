"""``cuvler predictions``: run a detector over a dataset."""

import logging
from pathlib import Path

import click

from cuvler.extras import require_extra

log = logging.getLogger(__name__)


@click.command("predictions")
@click.option("--detector", type=Path, required=True, help="A detector's folder, or weights.")
@click.option("--listing", type=Path, required=True, help="Listing (.parquet) or COCO json.")
@click.option("--image-root", type=Path, required=True, help="Folder its file names start from.")
@click.option("--output", type=Path, required=True, help="The COCO results json to write.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Leave out predictions under it.",
)
@click.option(
    "--detections-per-image",
    type=click.IntRange(1),
    help="Keep at most so many an image, instead of what the detector's config says.",
)
@click.option("--num-gpus", type=click.IntRange(0), help="0 is the CPU.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="Image-reading processes for each GPU.",
)
@click.option(
    "--max-failed",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="The share of images that may be missing or unreadable.",
)
@click.option("--tta", is_flag=True, help="Average over sizes and mirror images.")
@click.option(
    "--detector-config",
    help="cutler_mask_rcnn, semi_supervised_10 ... or a .yaml, of weights alone.  "
    "[default: votecut_cad]",
)
@click.option(
    "--unpickle-sha256",
    default="",
    help="Weights that can only be read by running code: unpickle them if this is their sha256.",
)
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
    """Write what a detector finds in a dataset's images as COCO results."""
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
    log.info(
        "%d predictions in %d images, %d images left out",
        summary.predictions,
        summary.images,
        len(summary.failed),
    )
