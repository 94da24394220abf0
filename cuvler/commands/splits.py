"""``cuvler splits``: draw splits with a few percent of a dataset's labels."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.splits import write_splits

logger = logging.getLogger(__name__)


@click.command("splits")
@options.ground_truth("COCO json with classes.")
@click.option(
    "--percent",
    "percents",
    type=click.IntRange(1, 100),
    multiple=True,
    required=True,
    help="Percentage of the images. Repeatable.",
)
@options.seed("Random seed of the choice of images.")
@options.output("Folder for PERCENT.json.")
def command(ground_truth: Path, percents: tuple[int, ...], seed: int, output: Path) -> None:
    """Draw nested random splits of a COCO json's images: 1 % is a part of 2 %, and so on."""
    for percent, count in write_splits(ground_truth, output, percents=percents, seed=seed).items():
        logger.info("%d %%: %d images", percent, count)
