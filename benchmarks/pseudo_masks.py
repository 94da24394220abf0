"""How long VoteCut takes, ours against the published way, and how it scales with the workers.

    python benchmarks/pseudo_masks.py --scenes FOLDER [--maps FOLDER]

The published way is what the paper describes, with the libraries it names: scikit-learn's k-means
with 10 starts, IoU by torch.cdist, pydensecrf with both kernels for every mask, scipy's hole
filling. MaskCut's row is the refinement of three masks of an image at 480 x 480. Both ways run in
turn on every image, on one thread, and what is compared is processor time: other work on the
machine disturbs it least.
"""

import math
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from cuvler.eigenvectors import ncut
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.features import load_backbone
from cuvler.eigenvectors.store import STATUSES, ShardEigenvectors, write_eigenvectors
from cuvler.images import EXTENSIONS, open_image
from cuvler.pseudo_masks import votecut
from cuvler.pseudo_masks.clusters import cluster, overlaps
from cuvler.pseudo_masks.crf import dense_crf
from cuvler.pseudo_masks.kmeans import kmeans_1d
from cuvler.pseudo_masks.mask_cut import SIDE, refine_cuts
from cuvler.pseudo_masks.proposals import propose, resize_nearest
from cuvler.pseudo_masks.refinement import crop_of, fill_holes
from cuvler.pseudo_masks.shard import process_shard
from cuvler.pseudo_masks.vote_cut import VoteCut

KS = (2, 3)
PIXELS = ("pixels_p16", "pixels_p14", "pixels_p8")
Maps = dict[str, NDArray[np.float32]]
Masks = NDArray[np.bool_]
Times = dict[str, tuple[list[float], list[float]]]


def published_kmeans(maps: Maps) -> None:
    """Cluster every map by scikit-learn."""
    for vector in maps.values():
        for k in KS:
            KMeans(k, n_init=10, random_state=0).fit(vector.reshape(-1, 1))


def our_kmeans(maps: Maps) -> None:
    """Cluster every map exactly."""
    for vector in maps.values():
        for k in KS:
            kmeans_1d(vector, k)


def published_overlaps(proposals: Masks) -> None:
    """Pairwise IoU from L1 distances: |A xor B| is the distance of two binary vectors."""
    flat = torch.from_numpy(proposals.reshape(len(proposals), -1)).float()
    differ = torch.cdist(flat, flat, p=1)
    areas = flat.sum(1)
    union = (areas[:, None] + areas[None, :] + differ) / 2
    _ = 1 - differ / union


def vote_masks(proposals: Masks) -> list[Masks]:
    """The masks that are refined, on the grid of the proposals."""
    return [proposals[c].mean(axis=0) > 0.2 for c in cluster(overlaps(proposals))[:10]]


def published_refinement(pixels: NDArray[np.uint8], masks: list[Masks]) -> None:
    """pydensecrf on every mask's crop, holes filled by scipy."""
    for mask in masks:
        crop = crop_of(mask)
        refined = np.zeros_like(mask)
        refined[crop] = dense_crf(pixels[crop], mask[crop], crf="pydensecrf")
        ndimage.binary_fill_holes(refined)


def our_refinement(pixels: NDArray[np.uint8], masks: list[Masks]) -> None:
    """The compiled CRF, holes filled by connected components."""
    for mask in masks:
        crop = crop_of(mask)
        refined = np.zeros_like(mask)
        refined[crop] = fill_holes(dense_crf(pixels[crop], mask[crop], crf="fast"))


def published_cuts(image: Image.Image, cuts: list[Masks]) -> None:
    """MaskCut's refinement: pydensecrf on the whole image for every cut."""
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    for cut in cuts:
        refined = dense_crf(pixels, resize_nearest(cut, SIDE, SIDE), crf="pydensecrf")
        filled = ndimage.binary_fill_holes(refined)
        Image.fromarray(filled).resize(image.size, Image.Resampling.BICUBIC)


def compare(image: Image.Image, maps: Maps, times: Times) -> None:
    """Time every stage both ways on one image."""
    pixels = np.asarray(image)
    proposals = propose(maps, KS)
    votes = vote_masks(proposals)
    masks = [resize_nearest(vote, *pixels.shape[:2]) for vote in votes]

    def published() -> None:
        published_kmeans(maps)
        published_overlaps(proposals)
        published_refinement(pixels, masks)

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "k-means": (lambda: published_kmeans(maps), lambda: our_kmeans(maps)),
        "overlaps": (lambda: published_overlaps(proposals), lambda: overlaps(proposals)),
        "refinement": (
            lambda: published_refinement(pixels, masks),
            lambda: our_refinement(pixels, masks),
        ),
        "MaskCut's": (
            lambda: published_cuts(image, votes[:3]),
            lambda: refine_cuts(image, np.array(votes[:3])),
        ),
        # Ours is the whole of votecut; theirs leaves out the labelling and the greedy clustering.
        "whole image": (published, lambda: votecut(image, maps, crf="fast")),
    }
    for stage, ways in pairs.items():
        for way, run in zip(times[stage], ways, strict=True):
            start = time.process_time()
            run()
            way.append(time.process_time() - start)


def maps_from_pixels(image: Image.Image) -> Maps:
    """Eigenvectors of the weights-free backbones."""
    maps = {}
    for name in PIXELS:
        backbone = load_backbone(backbone_spec(name))
        pairs = ncut(backbone.features(backbone.prepare(image)[None]))
        maps[name] = pairs.vectors.numpy().reshape(backbone.spec.grid).astype(np.float32)
    return maps


def write_shard_of(maps: list[Maps], folder: Path) -> list[Path]:
    """Write the maps as the voting stage reads them."""
    paths = []
    for name, first in maps[0].items():
        shard = ShardEigenvectors.empty(np.arange(len(maps)), 1, first.shape)
        shard.status[:] = STATUSES.index("ok")
        shard.eigenvectors[:, 0] = [m[name] for m in maps]
        paths.append(folder / f"{name}.zarr.zip")
        write_eigenvectors(paths[-1], shard, {"backbone": name, "problem": "standard"})
    return paths


def stage_seconds(paths: list[Path], maps: list[Maps], workers: int) -> float:
    """Seconds an image of the stage, over its second half: by then all workers are up."""
    repeats = math.ceil(128 / len(maps))
    listing = pd.DataFrame(
        {"image_id": np.arange(len(maps) * repeats), "file_name": [p.name for p in paths] * repeats}
    )
    with tempfile.TemporaryDirectory() as folder:
        stores = write_shard_of(maps * repeats, Path(folder))
        method = VoteCut(backbones=tuple(maps[0]))
        records = process_shard(listing, paths[0].parent, stores, method, workers=workers)
        for _ in range(len(listing) // 2):
            next(records)
        start = time.perf_counter()
        rest = sum(1 for _ in records)
        return (time.perf_counter() - start) / rest


@click.command()
@click.option("--scenes", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--maps", type=click.Path(exists=True, path_type=Path), help="IMAGE.npz: name -> map")
@click.option("--images", default=16, show_default=True, help="How many images.")
@click.option("--repeats", default=3, show_default=True, help="Rounds over the images.")
def main(scenes: Path, maps: Path | None, images: int, repeats: int) -> None:
    """Print two tables."""
    torch.set_num_threads(1)
    paths = sorted(path for path in scenes.iterdir() if path.suffix in EXTENSIONS)
    if maps is not None:
        paths = [path for path in paths if (maps / f"{path.stem}.npz").exists()]
    opened = [open_image(path) for path in paths[:images]]
    of_images = (
        [maps_from_pixels(image) for image in opened]
        if maps is None
        else [dict(np.load(maps / f"{path.stem}.npz")) for path in paths[:images]]
    )
    times: Times = defaultdict(lambda: ([], []))
    with threadpool_limits(1):
        compare(opened[0], of_images[0], defaultdict(lambda: ([], [])))  # Compiles, warms up.
        for _ in range(repeats):
            for image, its_maps in zip(opened, of_images, strict=True):
                compare(image, its_maps, times)
    print(f"{len(opened)} images x {repeats}, {platform.processor() or platform.machine()}")
    print(f"{'stage':<12} {'published':>10} {'ours':>10} {'ratio':>6}   (median ms an image)")
    for stage, (theirs, ours) in times.items():
        median = statistics.median(theirs) * 1e3, statistics.median(ours) * 1e3
        ratio = sum(theirs) / sum(ours)
        print(f"{stage:<12} {median[0]:>10.2f} {median[1]:>10.2f} {ratio:>6.1f}")
    print(f"\nthe stage on {os.cpu_count()} processors: workers, ms an image")
    for workers in (1, 2):
        seconds = stage_seconds(paths[:images], of_images, workers)
        print(f"{workers:>7} {seconds * 1e3:>10.1f}")


if __name__ == "__main__":
    main()
