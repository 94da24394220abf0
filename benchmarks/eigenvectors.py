"""Time the eigenvector stage: the published dense solver, scipy's sparse one, ours, and the ViTs.

    python benchmarks/eigenvectors.py                     the solvers, and what is written
    python benchmarks/eigenvectors.py --backbones all     and the six ViTs, with random weights

Everything runs in one process, turn by turn, and medians are printed. On the CPU the solvers'
processor time is compared, which other work on the machine disturbs least; with one thread it is
the time an idle machine takes. On a machine with a GPU the ViTs run there, and the solver is timed
on both.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.linalg import LinearOperator, eigsh
from threadpoolctl import threadpool_limits
from torch import Tensor

from cuvler.devices import count_gpus, find_device, gpu_name, wait_for_gpu
from cuvler.eigenvectors import ncut
from cuvler.eigenvectors.backbones import BACKBONES, BackboneSpec
from cuvler.eigenvectors.cuts import cut_repeatedly
from cuvler.eigenvectors.extraction import default_batch_size, extract_shard
from cuvler.eigenvectors.features import Backbone
from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.eigenvectors.normalized_cut import TOLERANCE
from cuvler.eigenvectors.partitions import partitions
from cuvler.eigenvectors.store import ShardEigenvectors, write_eigenvectors
from cuvler.eigenvectors.vit import Precision, ViTFeatures, create_vit, prepare_image
from cuvler.images import open_image

VITS = [name for name, spec in BACKBONES.items() if spec.timm is not None]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, nargs="*", default=[900, 1156, 3600])
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--backbones", nargs="*", default=[], metavar="NAME", help="or: all")
    parser.add_argument(
        "--images",
        type=int,
        # On a GPU a few images take no longer than starting the processes that decode them.
        default=512 if count_gpus() else 4,
        help="images a ViT is timed on",
    )
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine(arguments.threads))
    with threadpool_limits(arguments.threads):
        solvers(arguments.patches, arguments.channels, arguments.repeats)
        repeated_cuts(max(arguments.patches), arguments.channels, arguments.repeats)
        files()
        names = VITS if arguments.backbones == ["all"] else arguments.backbones
        if names:
            backbones = (random_vit(BACKBONES[name], arguments.precision) for name in names)
            vits(backbones, arguments.images, arguments.repeats)


def machine(threads: int) -> str:
    """Describe what the numbers were taken on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(": ")[1] for line in lines if "model name" in line), "unknown CPU")
    gpu = f", {gpu_name()}" if count_gpus() else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{model}, {threads} threads{gpu}; {versions}"


def smooth_features(patches: int, channels: int) -> NDArray[np.float32]:
    """Random features that vary smoothly over a square grid, as those of a ViT do: (n, d)."""
    side = int(patches**0.5)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.standard_normal((1, channels, 6, 6)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    noise = 0.5 * rng.standard_normal((side * side, channels))
    return (smooth[0].flatten(1).T.numpy() + noise).astype(np.float32)


def published(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """The dense generalized problem in float64, as TokenCut, CutLER and CuVLER state it."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.where(unit @ unit.T > 0.15, 1.0, 1e-5)
    degrees = np.diag(weights.sum(axis=1))
    _, vectors = scipy.linalg.eigh(degrees - weights, degrees, subset_by_index=[1, 1])
    vector: NDArray[np.float64] = vectors[:, 0]
    return vector


def sparse(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same eigenvector by scipy's sparse solver (ARPACK), to the tolerance of ours.

    W is (1 - eps) times the sparse matrix of edges, plus eps everywhere. Float32 is faster than
    float64, and the sparse matrix faster than a dense one.
    """
    eps = np.float32(1e-5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    edges = scipy.sparse.csr_array(unit @ unit.T > 0.15, dtype=np.float32)
    n = len(features)
    scale = 1 / np.sqrt((1 - eps) * edges.sum(axis=1) + eps * n)

    def product(y: NDArray[np.float32]) -> NDArray[np.float32]:
        x = scale * y.ravel()
        result: NDArray[np.float32] = scale * ((1 - eps) * (edges @ x) + eps * x.sum())
        return result

    affinity = LinearOperator((n, n), matvec=product, dtype=np.float32)
    # Largest but one of the affinity, so second smallest of the Laplacian.
    _, vectors = eigsh(affinity, k=2, which="LA", tol=TOLERANCE)
    vector: NDArray[np.float32] = scale * vectors[:, 0]
    return vector


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The cosine between two eigenvectors, of either sign."""
    return float(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))


def median(
    functions: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Time functions in turns, after one call each to warm up: median seconds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            wait_for_gpu()
            if turn:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def solvers(sizes: list[int], channels: int, repeats: int) -> None:
    """Print the table of the three solvers, the affinity included in all."""
    print(
        "\n| patches | published: scipy eigh, float64 | scipy eigsh, sparse | ours, CPU "
        "| times eigh | times eigsh | cosines to eigh | ours, GPU |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in sizes:
        features = smooth_features(size, channels)
        ways: dict[str, Callable[[], object]] = {
            "published": partial(published, features),
            "sparse": partial(sparse, features),
            "ours": partial(ncut, features),
        }
        seconds = median(ways, repeats, time.process_time)
        expected = published(features)
        found = (sparse(features), ncut(features).generalized()[0])
        cosines = ", ".join(f"{cosine(vector, expected):.7f}" for vector in found)
        print(
            f"| {len(features)} | {seconds['published']:.3f} s | {1e3 * seconds['sparse']:.1f} ms "
            f"| {1e3 * seconds['ours']:.1f} ms | {seconds['published'] / seconds['ours']:.0f}x "
            f"| {seconds['sparse'] / seconds['ours']:.1f}x | {cosines} "
            f"| {gpu_time(features, repeats)} |",
            flush=True,
        )


def published_cuts(features: NDArray[np.float32], grid: tuple[int, int]) -> None:
    """MaskCut's three cuts, each by the dense problem in float64."""
    vectors = np.empty((0, *grid))
    for _ in range(3):
        taken = partitions(vectors).any(axis=0).reshape(-1, 1) if len(vectors) else False
        rest = np.where(taken, np.float32(1e-12), features)
        vectors = np.concatenate([vectors, published(rest).reshape(1, *grid)])


def repeated_cuts(patches: int, channels: int, repeats: int) -> None:
    """Print the table of MaskCut's cuts by either solver."""
    side = int(patches**0.5)
    features = smooth_features(patches, channels)
    batch = torch.from_numpy(features)[None]
    ways: dict[str, Callable[[], object]] = {
        "published": partial(published_cuts, features, (side, side)),
        "ours": partial(cut_repeatedly, batch, (side, side)),
    }
    seconds = median(ways, max(1, repeats // 2), time.process_time)
    print("\n| three cuts of | published: scipy eigh, float64 | ours, CPU | ratio |")
    print("|---|---|---|---|")
    print(
        f"| {side * side} patches | {seconds['published']:.2f} s | {1e3 * seconds['ours']:.0f} ms "
        f"| {seconds['published'] / seconds['ours']:.0f}x |",
        flush=True,
    )


def files(images: int = 200) -> None:
    """Print what the six ViTs' eigenvectors take on the disk, for one image."""
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name, "ours"), Path(name, "published")
        theirs.mkdir()
        for backbone in VITS:
            spec = BACKBONES[backbone]
            shard = ShardEigenvectors.empty(np.arange(images), 1, spec.grid)
            shard.eigenvectors[:] = np.random.default_rng(0).random(shard.eigenvectors.shape)
            write_eigenvectors(ours / f"{backbone}.zarr.zip", shard, spec.settings())
            for index, vector in enumerate(shard.eigenvectors):
                torch.save(torch.from_numpy(vector).double(), theirs / f"{backbone}_{index}.pt")
        print(f"\n| eigenvectors of six ViTs, {images} images | files | bytes an image |")
        print("|---|---|---|")
        for title, folder in (("one float64 .pt each", theirs), ("ours", ours)):
            found = [path.stat() for path in folder.iterdir()]
            # Whole blocks of the file system: what a small file takes of the disk.
            size = sum(512 * stat.st_blocks for stat in found)
            print(f"| {title} | {len(found)} | {size / images:,.0f} |")


def gpu_time(features: NDArray[np.float32], repeats: int) -> str:
    """An image's time in a batch on the GPU, if there is one."""
    if not count_gpus():
        return "-"
    count = max(1, 32 * 900 // len(features))
    batch = torch.from_numpy(features).to("cuda").repeat(count, 1, 1)
    seconds = median({"gpu": partial(ncut, batch)}, repeats)["gpu"]
    return f"{1e3 * seconds / count:.2f} ms"


def random_vit(spec: BackboneSpec, precision: Precision) -> Backbone:
    """A backbone with random weights, on the GPU if there is one."""
    torch.manual_seed(0)
    device = find_device("auto")
    model = ViTFeatures(create_vit(spec), spec.feature, precision).to(device)
    prepare = partial(prepare_image, size=spec.size)
    return Backbone(spec, device, prepare, model, None, precision)


def vits(backbones: Iterable[Backbone], images: int, repeats: int) -> None:
    """Print the table of what the ViTs do a second, alone and with what surrounds them."""
    print(
        "\n| backbone | device, precision | batch | opening, a core | forward | with eigenvectors "
        "| whole stage | share of the forward |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        listing = write_images(Path(folder), images)
        for backbone in backbones:
            spec = backbone.spec
            batch_size = min(default_batch_size(backbone), images)
            batch = torch.randint(0, 256, (batch_size, 3, spec.size, spec.size), dtype=torch.uint8)
            seconds = median(vit_functions(backbone, batch, listing, Path(folder)), repeats)
            counts = {"forward": batch_size, "eigenvectors": batch_size, "stage": images}
            rates = {name: count / seconds[name] for name, count in counts.items()}
            rates = {"opening": min(images, 32) / seconds["opening"]} | rates
            print(
                f"| {spec.name} | {backbone.device}, {backbone.precision} | {batch_size} | "
                + " | ".join(f"{rate:.2f} images/s" for rate in rates.values())
                + f" | {100 * rates['stage'] / rates['forward']:.0f} % |",
                flush=True,
            )


def write_images(folder: Path, count: int) -> pd.DataFrame:
    """Write JPEGs of the size of COCO's."""
    names = [f"{index}.jpg" for index in range(count)]
    for index, name in enumerate(names):
        coarse = np.random.default_rng(index).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(coarse).resize((640, 480)).save(folder / name)
    return pd.DataFrame({"image_id": range(count), "file_name": names})


def vit_functions(
    backbone: Backbone, batch: Tensor, listing: pd.DataFrame, folder: Path
) -> dict[str, Callable[[], object]]:
    """What is timed of a ViT: the model, with the solver, and with decoding and writing too.

    On a GPU the whole stage has all cores, as in a job of its own.
    """
    batch = batch.to(backbone.device)
    workers = max(1, (os.cpu_count() or 2) - 1) if backbone.device.type == "cuda" else 1
    paths = [folder / name for name in listing["file_name"][:32]]
    return {
        "opening": lambda: [backbone.prepare(open_image(path)) for path in paths],
        "forward": lambda: backbone.features(batch),
        "eigenvectors": lambda: ncut(backbone.features(batch)),
        "stage": lambda: extract_shard(
            listing,
            folder,
            backbone,
            folder / "out.zarr.zip",
            need=Eigenvectors(),
            batch_size=len(batch),
            workers=workers,
        ),
    }


if __name__ == "__main__":
    main()
