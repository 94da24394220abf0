"""``cuvler self-training``: convert predictions to the next round's annotations."""

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
    help="The detector's training annotations (COCO json): they are kept unless predictions "
    "replace them, as in CutLER. Without it only predictions are kept, as in CuVLER.",
)
@options.score_threshold(None, "Smallest score kept (CuVLER: 0.2; CutLER: 0.7, in round 2 0.65).")
@options.detections_per_image("Top-scoring predictions used per image (CutLER: 30).")
@options.output("The COCO json to write.")
def command(
    predictions: Path,
    listing: Path,
    previous: Path | None,
    score_threshold: float,
    detections_per_image: int | None,
    output: Path,
) -> None:
    """Convert a detector's high-scoring predictions to training annotations."""
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
