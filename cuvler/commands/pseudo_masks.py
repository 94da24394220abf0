"""``cuvler pseudo-masks``: make one shard's masks."""

import logging
from pathlib import Path
from typing import Any

import click

from cuvler.commands.method_options import MethodCommand
from cuvler.errors import DataError
from cuvler.listing import read_listing
from cuvler.progress import with_progress
from cuvler.pseudo_masks.methods import make_method
from cuvler.pseudo_masks.voting import info_of, process_shard, read_attributes, write_shard

logger = logging.getLogger(__name__)


@click.command("pseudo-masks", cls=MethodCommand)
@click.option("--listing", type=Path, required=True, help="The dataset's listing (.parquet).")
@click.option("--image-root", type=Path, required=True, help="The folder of the images.")
@click.option("--shard", type=click.IntRange(min=0), required=True, help="Which shard, from 0.")
@click.option(
    "--eigenvectors",
    type=Path,
    multiple=True,
    help="The shard's file of one backbone (.zarr.zip); once for each that the method works with, "
    "in their order.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--output", type=Path, required=True, help="The shard's masks to write (.json).")
def command(
    method: str,
    listing: Path,
    image_root: Path,
    shard: int,
    eigenvectors: tuple[Path, ...],
    workers: int,
    output: Path,
    **settings: Any,
) -> None:
    """Make one shard's masks.

    Every image of the shard is in the result with its status, also those without a mask.
    """
    if not image_root.is_dir():
        raise DataError(
            f"{image_root}: no such folder; --image-root is the folder of the dataset's images"
        )
    images = read_listing(listing, shard=shard)
    attributes = read_attributes(eigenvectors)
    backbones = [made["backbone"] for made in attributes]
    chosen = make_method(method, settings, backbones=backbones)
    records = process_shard(images, image_root, eigenvectors, chosen, workers=workers)
    info = info_of(attributes, chosen)
    statuses = write_shard(output, info, with_progress(records, len(images)))
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    logger.info("%s: %d images: %s", output, statuses.total(), counts)
