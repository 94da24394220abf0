"""Time the merge of pseudo-masks, and measure its memory, on synthetic shards of any size.

    python benchmarks/annotations.py --images 1300000 --masks 6000000 --shards 320 --shards 32

The masks are ellipses with ragged borders, with RLE as long as that of real masks. For each number
of shards the same images and masks are written and merged by the command in a separate process.
The merged files must be identical. It needs about 1 kB of disk per mask.
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from cuvler import masks
from cuvler.coco import write_annotations
from cuvler.listing import write_listing

HEIGHT, WIDTH = 375, 500  # ImageNet's most common size
_VARIANTS = 500
_UNREADABLE = 997  # one in this many images is unreadable


def ragged_ellipses() -> list[dict[str, Any]]:
    """Return masks with box and area, as written by the pseudo-masks stage."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for _ in range(_VARIANTS):
        centre, radii = rng.uniform(0.3, 0.7, 2), rng.uniform(0.05, 0.35, 2)
        angle = np.arctan2(y / HEIGHT - centre[0], x / WIDTH - centre[1])
        ragged = 1 + 0.1 * np.sin(7 * angle + rng.uniform(0, 6))
        distance = np.hypot((y / HEIGHT - centre[0]) / radii[0], (x / WIDTH - centre[1]) / radii[1])
        rle = masks.encode(distance < ragged)
        found.append({"segmentation": rle, **masks.geometry(rle)})
    return found


def make_listing(images: int, shards: int) -> pd.DataFrame:
    """Return a listing with file names like ImageNet's."""
    number = np.arange(images)
    names = [f"n{10_000_000 + i // 1300}/n{10_000_000 + i // 1300}_{i}.JPEG" for i in range(images)]
    shard = np.repeat(
        np.arange(shards, dtype=np.int32), [len(p) for p in np.array_split(number, shards)]
    )
    return pd.DataFrame({"image_id": number + 1, "file_name": names, "shard": shard})


def write_shards(folder: Path, listing: pd.DataFrame, num_masks: int) -> int:
    """Write the shards; the masks of an image depend only on its id, not on the shard.

    Returns:
        The size of all shards in bytes.
    """
    shapes = ragged_ellipses()
    size = 0
    for shard, rows in listing.groupby("shard"):
        path = folder / f"{shard}.json"
        with write_annotations(path, {"info": {"method": "votecut"}}) as writer:
            for image_id, name in zip(rows["image_id"].tolist(), rows["file_name"], strict=True):
                found = list(_masks_of(image_id, len(listing), num_masks))
                writer.add_image(_image(image_id, name, bool(found)))
                for number in found:
                    annotation = shapes[number % _VARIANTS] | {"cluster_size": 8}
                    rest = {"score": 1 / (1 + number % 10), "crf_success": True}
                    writer.add_annotation({"image_id": image_id, **annotation, **rest})
        size += path.stat().st_size
    return size


def _masks_of(image_id: int, images: int, num_masks: int) -> Iterator[int]:
    """Yield the numbers of an image's masks, evenly distributed; none if it is unreadable."""
    if image_id % _UNREADABLE:
        yield from range((image_id - 1) * num_masks // images, image_id * num_masks // images)


def _image(image_id: int, name: str, has_masks: bool) -> dict[str, Any]:
    image = {"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT}
    if image_id % _UNREADABLE:
        return image | {"status": "ok" if has_masks else "no_mask"}
    return image | {"width": None, "height": None, "status": "unreadable", "reason": "synthetic"}


def merge(folder: Path, output: Path) -> tuple[float, float]:
    """Run the command and return its wall time in seconds and its peak memory in MB."""
    command = [
        *(sys.executable, "-c", "from cuvler.cli import main; main()", "annotations"),
        *("--listing", str(folder / "listing.parquet"), "--output", str(output), str(folder)),
    ]
    start = time.perf_counter()
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT, 0o644)
    process = os.posix_spawn(
        sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, log, 2)]
    )
    os.close(log)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise click.ClickException((folder / "log.txt").read_text()[-1000:])
    return time.perf_counter() - start, usage.ru_maxrss / 1024


@click.command()
@click.option("--images", default=1_300_000, show_default=True)
@click.option("--masks", "num_masks", default=6_000_000, show_default=True)
@click.option("--shards", multiple=True, type=int, default=[320, 32], show_default=True)
@click.option("--folder", type=click.Path(exists=True), help="Folder for temporary files.")
def main(images: int, num_masks: int, shards: tuple[int, ...], folder: str | None) -> None:
    """Print a table with one row per number of shards."""
    digests = set()
    print(f"{'shards':>6} {'shards MB':>10} {'merged MB':>10} {'seconds':>8} {'peak MB':>8}")
    for count in shards:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            there = Path(temporary)
            listing = make_listing(images, count)
            write_listing(listing, there / "listing.parquet")
            size = write_shards(there, listing, num_masks)
            output = there / "merged.json"
            seconds, peak = merge(there, output)
            merged = output.stat().st_size
            megabytes = f"{size / 1e6:>10.0f} {merged / 1e6:>10.0f}"
            print(f"{count:>6} {megabytes} {seconds:>8.1f} {peak:>8.0f}", flush=True)
            with output.open("rb") as stream:
                digests.add(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) != 1:
        raise click.ClickException("the merged files differ")
    print(f"{images} images, about {num_masks} masks: the merged files are identical")


if __name__ == "__main__":
    main()
