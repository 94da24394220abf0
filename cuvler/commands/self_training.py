"""``cuvler self-training``: turn predictions into the next round's annotations."""

import logging
from dataclasses import asdict
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.listing import read_listing
from cuvler.self_training import cutler_annotations, cuvler_annotations

logger = logging.getLogger(__name__)


@click.command("self-training")
@click.option("--predictions", required=True, type=Path, help="COCO results of the detector.")
@options.listing()
@click.option(
    "--previous",
    type=Path,
    help="The COCO json the detector was trained on, whose annotations stay where predictions "
    "do not replace them, as in CutLER; without it predictions alone, as in CuVLER.",
)
@options.score_threshold(None, "The lowest score kept (CuVLER 0.2; CutLER 0.7, in round 2 0.65).")
@options.detections_per_image("Look at the best that many predictions of an image (CutLER 30).")
@options.output("The COCO json to write.")
def command(
    predictions: Path,
    listing: Path,
    previous: Path | None,
    score_threshold: float,
    detections_per_image: int | None,
    output: Path,
) -> None:
    """Keep the predictions a detector is sure of as annotations to train on."""
    images = read_listing(listing)
    if previous is None:
        counts = cuvler_annotations(
            predictions,
            images,
            output,
            score_threshold=score_threshold,
            detections_per_image=detections_per_image,
        )
    else:
        counts = cutler_annotations(
            previous,
            predictions,
            images,
            output,
            score_threshold=score_threshold,
            detections_per_image=detections_per_image,
        )
    logger.info("%s", ", ".join(f"{key} {value}" for key, value in asdict(counts).items()))
