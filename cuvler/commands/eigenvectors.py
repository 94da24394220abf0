"""``cuvler eigenvectors``: extract one shard's eigenvectors into Zarr."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cuvler.eigenvectors.needs import NEEDS
from cuvler.listing import read_listing

if TYPE_CHECKING:
    from cuvler.eigenvectors.vit import Precision


@click.command("eigenvectors")
@click.option("--listing", type=Path, required=True, help="The dataset's listing (.parquet).")
@click.option(
    "--image-root", type=Path, required=True, help="The folder that file names start from."
)
@click.option("--backbone", required=True, help="A name of the table, or of --definitions.")
@click.option(
    "--definitions", default="{}", help="JSON of further ViTs: name -> timm, feature, size, patch."
)
@click.option("--weights", type=Path, help="A ViT's weights (.safetensors or .pth).")
@click.option("--shard", type=click.IntRange(min=0), required=True)
@click.option(
    "--problem",
    type=click.Choice(list(NEEDS)),
    default="standard",
    show_default=True,
    help="standard: the eigenvectors of each image's graph (VoteCut). generalized: an eigenvector "
    "of each of several cuts (MaskCut).",
)
@click.option(
    "--k",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many eigenvectors, or cuts.",
)
@click.option("--tau", type=click.FloatRange(-1, 1), default=0.15, show_default=True)
@click.option("--eps", type=click.FloatRange(0, 1, min_open=True), default=1e-5, show_default=True)
@click.option(
    "--batch-size",
    type=click.IntRange(min=0),
    default=0,
    help="Images in a forward pass; 0 chooses by the memory.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Decoding processes; by default what --threads leaves.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the ViT: float16 is mixed precision.",
)
@click.option("--output", type=Path, required=True, help="The file to write (.zarr.zip).")
def command(
    listing: Path,
    image_root: Path,
    backbone: str,
    definitions: str,
    weights: Path | None,
    shard: int,
    problem: str,
    k: int,
    tau: float,
    eps: float,
    batch_size: int,
    threads: int,
    workers: int | None,
    device: str,
    precision: "Precision",
    output: Path,
) -> None:
    """Extract the eigenvectors of one shard's images into one Zarr file."""
    import torch
    from threadpoolctl import threadpool_limits

    from cuvler.devices import find_device
    from cuvler.eigenvectors.backbones import backbone_spec, parse_definitions
    from cuvler.eigenvectors.extraction import extract_shard
    from cuvler.eigenvectors.features import load_backbone
    from cuvler.gpus import hold_gpus

    spec = backbone_spec(backbone, parse_definitions(definitions))
    with hold_gpus(0 if device == "cpu" else 1):
        device = find_device(device).type
        # numpy multiplies matrices by a library of its own.
        torch.set_num_threads(threads)
        threadpool_limits(threads)
        extract_shard(
            read_listing(listing, shard),
            image_root,
            load_backbone(spec, weights=weights, device=device, precision=precision),
            output,
            need=NEEDS[problem](k),
            tau=tau,
            eps=eps,
            batch_size=batch_size,
            workers=_workers(device, threads) if workers is None else workers,
        )


def _workers(device: str, threads: int) -> int:
    # Beside a GPU every other core decodes; beside a CPU's forward pass one is plenty.
    return threads - 1 if device == "cuda" else min(1, threads - 1)
