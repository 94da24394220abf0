"""The ``demo-data`` command."""

import os
from pathlib import Path

import click

from cuvler.demo_data import generate


@click.command(name="demo-data")
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for train/ and val/, each with images/*.jpg and annotations.json.",
)
@click.option("--train", default=240, show_default=True, help="Pictures of the train split.")
@click.option("--val", default=80, show_default=True, help="Pictures of the val split.")
@click.option("--seed", default=0, show_default=True, help="Chooses the pictures.")
@click.option("--workers", type=int, help="Processes to render with.  [default: one a CPU]")
def command(output: Path, train: int, val: int, seed: int, workers: int | None) -> None:
    """Generate the demo's scenes: shaded objects with exact masks, in COCO's format."""
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    generate(output, train=train, val=val, seed=seed, workers=workers)
