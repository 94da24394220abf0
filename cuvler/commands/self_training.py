"""``cuvler self-training``: turn predictions into the next round's annotations."""

import logging
from pathlib import Path

import click

from cuvler.files import read_json, write_json
from cuvler.images import read_listing
from cuvler.self_training import cutler_annotations, cuvler_annotations

log = logging.getLogger(__name__)


@click.command("self-training")
@click.option(
    "--recipe",
    required=True,
    type=click.Choice(["cuvler", "cutler"]),
    help="cuvler: predictions alone; cutler: with the former annotations they do not replace.",
)
@click.option("--predictions", required=True, type=Path, help="COCO results of the detector.")
@click.option("--images", type=Path, help="The dataset's listing (recipe cuvler).")
@click.option(
    "--previous", type=Path, help="The COCO json the detector was trained on (recipe cutler)."
)
@click.option(
    "--threshold",
    required=True,
    type=click.FloatRange(0, 1),
    help="The lowest score kept (CuVLER 0.2; CutLER 0.7, in round 2 0.65).",
)
@click.option("--output", required=True, type=Path, help="The COCO json to write.")
def command(
    recipe: str,
    predictions: Path,
    images: Path | None,
    previous: Path | None,
    threshold: float,
    output: Path,
) -> None:
    """Keep the predictions a detector is sure of as annotations to train on."""
    if recipe == "cuvler":
        if images is None or previous is not None:
            raise click.UsageError("--recipe cuvler takes --images, and no --previous")
        content = cuvler_annotations(predictions, read_listing(images), threshold=threshold)
    else:
        if previous is None or images is not None:
            raise click.UsageError("--recipe cutler takes --previous, and no --images")
        content = cutler_annotations(read_json(previous), predictions, threshold=threshold)
    write_json(output, content)
    log.info("%s", ", ".join(f"{key} {value}" for key, value in content["info"].items()))
