"""``cuvler eigenvectors``: extract the eigenvectors of one shard into a Zarr file."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cuvler.commands import options
from cuvler.eigenvectors.needs import NEEDS, Cuts, MergeTree, Need
from cuvler.errors import ConfigError
from cuvler.listing import read_listing

if TYPE_CHECKING:
    from cuvler.eigenvectors.vit import Precision


@click.command("eigenvectors")
@options.listing()
@options.image_root()
@click.option("--backbone", required=True, help="A known backbone, or one of --definitions.")
@options.definitions()
@click.option("--weights", type=Path, help="A ViT's weights (.safetensors or .pth).")
@options.shard()
@click.option(
    "--problem",
    type=click.Choice(list(NEEDS)),
    default="standard",
    show_default=True,
    help="standard: the eigenvectors of each image's graph (VoteCut). generalized: an eigenvector "
    "of each of several cuts (MaskCut). merge_tree: the tree in which its patches merge "
    "(agglomerative).",
)
@click.option(
    "--num-eigenvectors",
    type=click.IntRange(min=1),
    help="Number of eigenvectors, or of cuts.  [default: 1; a merge tree has 2 maps]",
)
@click.option(
    "--stop-at-background",
    is_flag=True,
    help="End cutting earlier, where what is left is background; with --problem generalized.",
)
@options.tau()
@click.option(
    "--eps",
    type=click.FloatRange(0, 1, min_open=True),
    help="Edge weight of patches that are not connected.  [default: the backbone's own, else 1e-5]",
)
@options.batch_size(0, "Images per forward pass; 0 chooses it by the device's memory.", least=0)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Cores to use, including those of --workers.",
)
@options.workers("Image-decoding processes.  [default: by --threads]")
@options.device()
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the ViT; auto is float16 (mixed precision) on GPUs with tensor cores.",
)
@options.max_pixels()
@options.allow_outside()
@options.output("The file to write (.zarr.zip).")
def command(
    listing: Path,
    image_root: Path,
    backbone: str,
    definitions: str,
    weights: Path | None,
    shard: int,
    problem: str,
    num_eigenvectors: int | None,
    stop_at_background: bool,
    tau: float | None,
    eps: float | None,
    batch_size: int,
    threads: int,
    workers: int | None,
    device: str,
    precision: 'Literal["auto"] | Precision',
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
        found = find_device(device)
        # threadpoolctl limits numpy's BLAS, which is not torch's.
        torch.set_num_threads(threads)
        threadpool_limits(threads)
        extract_shard(
            read_listing(listing, shard),
            image_root,
            load_backbone(spec, weights=weights, device=str(found), precision=precision),
            output,
            need=_need(problem, num_eigenvectors, stop_at_background),
            **spec.graph(tau=tau, eps=eps),
            batch_size=batch_size,
            workers=_workers(found.type, threads) if workers is None else workers,
        )


def _need(problem: str, number: int | None, stop_at_background: bool) -> Need:
    k = number or (MergeTree.k if problem == MergeTree.problem else 1)
    if not stop_at_background:
        return NEEDS[problem](k)
    if problem != Cuts.problem:
        raise ConfigError(
            f"needs cuts (problem {Cuts.problem!r}, not {problem!r})",
            parameter="stop_at_background",
        )
    return Cuts(k, stop_at_background=True)


def _workers(device: str, threads: int) -> int:
    # With a GPU, all other cores decode; on the CPU one is enough for the forward pass.
    return threads - 1 if device == "cuda" else min(1, threads - 1)
