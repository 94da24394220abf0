"""Command line: ``python -m demo_scenes`` in the repository root."""

import logging
import os
from pathlib import Path

import click

from cuvler.errors import CuvlerError
from demo_scenes import generate

_POSITIVE = click.IntRange(min=1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for train/ and val/, each with images/*.jpg and annotations.json.",
)
@click.option(
    "--train",
    type=_POSITIVE,
    default=240,
    show_default=True,
    help="Number of images in the train split.",
)
@click.option(
    "--val",
    type=_POSITIVE,
    default=80,
    show_default=True,
    help="Number of images in the val split.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed of the scenes.",
)
@click.option("--workers", type=_POSITIVE, help="Rendering processes.  [default: one per CPU]")
def command(output: Path, train: int, val: int, seed: int, workers: int | None) -> None:
    """Render the demo's scenes: shaded objects with exact masks, in COCO format."""
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    try:
        generate(output, train=train, val=val, seed=seed, workers=workers)
    except CuvlerError as error:
        raise click.ClickException(str(error)) from error


# Guarded because the rendering processes import this module.
if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    command(prog_name="python -m demo_scenes")
