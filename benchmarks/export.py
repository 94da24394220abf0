"""Time exports of a large COCO json, and measure their memory.

    python benchmarks/export.py --images 1280000 --masks 6000000 --format coco-rle --folder /data

The masks are those of benchmarks/annotations.py. It needs about 4 kB of disk per mask.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
from annotations import make_listing, write_shards


def export(source: Path, name: str) -> tuple[float, float, float]:
    """Run the command; return its wall time in seconds, and its peak memory and output in MB."""
    output = source.parent / "exported"
    script = "from cuvler.cli import main; main()"
    command = [sys.executable, "-c", script, "export", str(source), "--format", name]
    start = time.perf_counter()
    process = os.posix_spawn(sys.executable, [*command, "--output", str(output)], os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    if status:
        raise click.ClickException(f"{name}: failed")
    files = [output] if output.is_file() else [file for file in output.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink()
    return seconds, usage.ru_maxrss / 1024, size / 1e6


@click.command()
@click.option("--images", default=130_000, show_default=True)
@click.option("--masks", "num_masks", default=600_000, show_default=True)
@click.option("--format", "names", multiple=True, default=["coco-rle", "coco-polygons", "parquet"])
@click.option("--folder", type=click.Path(exists=True), help="Folder for temporary files.")
def main(images: int, num_masks: int, names: tuple[str, ...], folder: str | None) -> None:
    """Print a table with one row per format."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        there = Path(temporary)
        size = write_shards(there, make_listing(images, 1), num_masks)
        print(f"{images} images, {num_masks} masks, {size / 1e6:.0f} MB", flush=True)
        print(f"{'format':>14} {'seconds':>8} {'peak MB':>8} {'MB':>8}", flush=True)
        for name in names:
            seconds, peak, megabytes = export(there / "0.json", name)
            print(f"{name:>14} {seconds:>8.1f} {peak:>8.0f} {megabytes:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
