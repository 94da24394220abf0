"""``cuvler pseudo-masks``: compute the pseudo-masks of one shard."""

import logging
from pathlib import Path
from typing import Any

import click

from cuvler.commands import options
from cuvler.commands.method_options import MethodCommand
from cuvler.errors import DataError
from cuvler.pseudo_masks.methods import make_method

logger = logging.getLogger(__name__)


@click.command("pseudo-masks", cls=MethodCommand)
@options.listing()
@options.image_root()
@options.shard()
@click.option(
    "--eigenvectors",
    type=Path,
    multiple=True,
    help="The shard's eigenvectors of one backbone (.zarr.zip). Repeat for each of the method's "
    "backbones, in their order.",
)
@options.workers("Worker processes; each processes one image at a time.", 1, least=1)
@options.max_pixels()
@options.allow_outside()
@options.output("The json of the shard's masks to write.")
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
    """Compute the pseudo-masks of one shard.

    The result has every image of the shard with its status, also images without masks. It is not
    written if images ran out of memory: the next run tries these again, one at a time.
    """
    from cuvler.listing import read_listing
    from cuvler.progress import with_progress
    from cuvler.pseudo_masks.shard import info_of, process_shard, read_attributes, write_shard
    from cuvler.pseudo_masks.unfinished import find_unfinished

    if not image_root.is_dir():
        raise DataError(
            f"{image_root}: no such folder; --image-root is the folder of the dataset's images"
        )
    images = read_listing(listing, shard=shard)
    attributes = read_attributes(eigenvectors)
    backbones = [made["backbone"] for made in attributes]
    chosen = make_method(method, settings, backbones=backbones)
    info = info_of(attributes, chosen)
    earlier = find_unfinished(output, info, images, eigenvectors)
    if earlier:
        logger.info("%s: images that ran out of memory are tried again, one at a time", earlier)
    records = process_shard(
        images, image_root, eigenvectors, chosen, workers=workers, unfinished=earlier
    )
    shown = with_progress(records, len(images))
    statuses = write_shard(output, info, shown, last_try=earlier is not None)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    logger.info("%s: %d images: %s", output, statuses.total(), counts)
