"""``cuvler splits``: take a few percent of a dataset's labels."""

import logging
from pathlib import Path

import click

from cuvler.splits import write_splits

log = logging.getLogger(__name__)


@click.command("splits")
@click.option("--ground-truth", type=Path, required=True, help="COCO json with classes.")
@click.option(
    "--percent",
    "percents",
    type=click.IntRange(1, 100),
    multiple=True,
    required=True,
    help="Of the images; repeat for several.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option("--output", type=Path, required=True, help="Folder for PERCENT.json.")
def command(ground_truth: Path, percents: tuple[int, ...], seed: int, output: Path) -> None:
    """Draw nested splits of a COCO json by image: what is in 1 % is in 2 %, and so on."""
    for percent, count in write_splits(ground_truth, output, percents=percents, seed=seed).items():
        log.info("%d %%: %d images", percent, count)
