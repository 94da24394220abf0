"""``cuvler pseudo-masks``: cut one shard's masks from eigenvectors."""

import logging
from pathlib import Path
from typing import get_args

import click

from cuvler.errors import DataError
from cuvler.listing import read_listing
from cuvler.progress import with_progress
from cuvler.pseudo_masks.crf import Crf
from cuvler.pseudo_masks.methods import MaskCut, Method, VoteCut
from cuvler.pseudo_masks.voting import process_shard, settings_of, write_shard

log = logging.getLogger(__name__)


@click.command("pseudo-masks")
@click.option(
    "--method", type=click.Choice(["votecut", "maskcut"]), default="votecut", show_default=True
)
@click.option("--images", type=Path, required=True, help="The dataset's listing (.parquet).")
@click.option("--root", type=Path, required=True, help="The folder of the images.")
@click.option("--shard", type=click.IntRange(min=0), required=True, help="Which shard, from 0.")
@click.option(
    "--eigenvectors",
    type=Path,
    multiple=True,
    required=True,
    help="The shard's file of one backbone (.zarr.zip); once for each, in their order.",
)
@click.option(
    "--ks",
    type=click.IntRange(min=2),
    multiple=True,
    default=(2, 3),
    show_default=True,
    help="VoteCut: numbers of clusters that each eigenvector is cut into.",
)
@click.option(
    "--tau-m",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="VoteCut: a pixel belongs where more than this share of the cluster says so.",
)
@click.option(
    "--crf",
    type=click.Choice(get_args(Crf)),
    default="fast",
    show_default=True,
    help="The dense CRF that refines the masks.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--output", type=Path, required=True, help="The shard's masks to write (.json).")
def command(
    method: str,
    images: Path,
    root: Path,
    shard: int,
    eigenvectors: tuple[Path, ...],
    ks: tuple[int, ...],
    tau_m: float,
    crf: Crf,
    workers: int,
    output: Path,
) -> None:
    """Cut one shard's masks from the eigenvectors of its backbones.

    Every image of the shard is in the result with its status, also those without a mask.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --root is the folder of the dataset's images")
    listing = read_listing(images, shard=shard)
    chosen: Method = MaskCut(crf) if method == "maskcut" else VoteCut(ks, tau_m, crf)
    records = process_shard(listing, root, eigenvectors, chosen, workers=workers)
    info = settings_of(eigenvectors, chosen)
    statuses = write_shard(output, info, with_progress(records, len(listing)))
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    log.info("%s: %d images: %s", output, statuses.total(), counts)
