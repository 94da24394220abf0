"""``cuvler annotations``: merge a dataset's shards into one COCO json."""

import logging
from pathlib import Path

import click

from cuvler.annotations import merge_shards
from cuvler.commands import options
from cuvler.listing import read_listing

logger = logging.getLogger(__name__)


@click.command("annotations")
@options.listing()
@options.max_failed("Largest fraction of images that may be missing, unreadable or failed.")
@options.output("The COCO json to write.")
@click.argument("pseudo_masks", type=Path)
def command(listing: Path, max_failed: float, output: Path, pseudo_masks: Path) -> None:
    """Merge the shards 0.json, 1.json, ... of the folder PSEUDO_MASKS into one COCO json.

    The merge fails if an image of the listing is in no shard.
    """
    images = read_listing(listing)
    shards = [pseudo_masks / f"{shard}.json" for shard in range(images["shard"].max() + 1)]
    statuses = merge_shards(images, shards, output, max_failed=max_failed)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    logger.info("%d images: %s", statuses.total(), counts)
