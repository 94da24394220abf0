"""``cuvler images``: list a dataset's images and divide them into shards."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.errors import DataError
from cuvler.listing import INITIAL_STATE, list_images, write_listing

logger = logging.getLogger(__name__)


@click.command("images")
@options.dataset(required=True)
@options.image_root()
@options.ground_truth(
    "COCO json that lists the images.  [default: all images in the folder]", required=False
)
@options.image_ids(
    "order",
    "digits",
    "ground_truth",
    help="Image ids: in order, the digits of the file name, or those of --ground-truth.",
)
@click.option(
    "--shards",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of shards, of equal size.",
)
@click.option(
    "--state",
    default=INITIAL_STATE,
    help="Stored in the listing; the workflow changes it when the folder's images have changed.",
)
@options.allow_outside()
@options.output("The listing to write (.parquet).")
def command(
    dataset: str,
    image_root: Path,
    ground_truth: Path | None,
    ids: str,
    shards: int,
    state: str,
    output: Path,
) -> None:
    """List a dataset's images and divide them into shards.

    No image is opened; unreadable images are reported by later stages.
    """
    for key, path, kind in (
        ("images", image_root, "folder"),
        ("ground_truth", ground_truth, "file"),
    ):
        if path is not None and not (path.is_dir() if kind == "folder" else path.is_file()):
            raise DataError(
                f"datasets.{dataset}.{key}: there is no {kind} {path} (looked in "
                f"{Path.cwd()}); put the data there, or set datasets.{dataset} or "
                "datasets_root in your config to where it is"
            )
    listing = list_images(image_root, ground_truth=ground_truth, ids=ids, shards=shards)  # type: ignore[arg-type]
    write_listing(listing, output, state=state)
    logger.info("%s: %d images in %d shards", dataset, len(listing), shards)
