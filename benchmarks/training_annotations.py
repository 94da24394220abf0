"""Time the start of a training on annotations of any size, and measure the memory of its processes.

    python benchmarks/training_annotations.py --images 1280000 --masks 6000000

The masks are those of benchmarks/annotations.py; all file names are of a few photographs' size. For
each start, two processes train the demo's detector for one iteration on the CPU: with a small json,
with the large one, and again with the large one, now with its mapped file. It needs about
1 kB of disk per mask. Private memory is what only one process has; the mapped file is shared.
"""

import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from annotations import HEIGHT, WIDTH, ragged_ellipses
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from PIL import Image

from cuvler.coco import write_annotations
from cuvler.detector.config import load_detector_config
from cuvler.detector.processes import find_place, run_processes
from cuvler.detector.train import Trainer
from cuvler.detector.training_annotations import FILE, read_shared_annotations

_FILES = 64
_PROCESSES = 2
_STARTED = "CUVLER_BENCHMARK_STARTED"


def write_json(path: Path, images: int, num_masks: int) -> None:
    """Write annotations as ``cuvler annotations`` does, and the images that they name."""
    generator = np.random.default_rng(0)
    for number in range(_FILES):
        pixels = generator.integers(0, 256, (HEIGHT // 5, WIDTH // 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(path.parent / f"{number}.jpg")
    shapes = ragged_ellipses()
    category = {"id": 1, "name": "object"}
    with write_annotations(path, {"info": {}, "categories": [category]}) as writer:
        number = 0
        for index in range(images):
            name = f"{index % _FILES}.jpg"
            writer.add_image({"id": index, "file_name": name, "width": WIDTH, "height": HEIGHT})
            while number < (index + 1) * num_masks // images:
                record = {"id": number, "image_id": index, "category_id": 1, "iscrowd": 0}
                score = {"score": 1 / (1 + number % 10)}
                writer.add_annotation(record | shapes[number % len(shapes)] | score)
                number += 1


def private_mb(pid: int | str = "self") -> float:
    """Return the memory of a process that no other process has, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def peak_mb() -> float:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def first_iteration(annotations: Path, workers: int) -> None:
    """Train for one iteration, as one of the processes, and print the figures as JSON."""
    cfg = load_detector_config("demo", num_gpus=0, machines=_PROCESSES)
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.OUTPUT_DIR, cfg.SEED, cfg.MODEL.WEIGHTS = str(annotations.with_suffix("")), 0, ""
    before = time.time()
    records = read_shared_annotations(annotations, annotations.parent, folder=cfg.OUTPUT_DIR)
    found: dict[str, Any] = {"read": time.time() - before, "peak": peak_mb()}
    trainer = Trainer(cfg, records, "benchmark")
    with EventStorage() as trainer.storage:
        trainer.iter = 0
        trainer.run_step()
    found["first_iteration"] = time.time() - float(os.environ[_STARTED])
    loaders = [child.pid for child in multiprocessing.active_children()]
    comm.synchronize()  # All processes are there when the private memory is read.
    found |= {"private": private_mb(), "workers": [private_mb(pid) for pid in loaders if pid]}
    comm.synchronize()
    print(json.dumps(found))


def start(annotations: Path, workers: int) -> list[dict[str, Any]]:
    """Start the processes and return what they print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, _STARTED: str(time.time())}
    world = {"WORLD_SIZE": str(_PROCESSES), "LOCAL_WORLD_SIZE": str(_PROCESSES)}
    options = ["--one-of", str(annotations), "--workers", str(workers)]
    command = [sys.executable, "-W", "ignore", __file__, *options]
    processes = []
    for rank in range(_PROCESSES):
        mine = os.environ | address | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(subprocess.Popen(command, env=mine, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise click.ClickException("a process failed; its message is above")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def megabytes(sizes: Iterable[float]) -> str:
    """Return sizes as text."""
    return ", ".join(f"{size:.0f}" for size in sizes)


@click.command()
@click.option("--images", default=1_280_000, show_default=True)
@click.option("--masks", "num_masks", default=6_000_000, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Data-loading processes of each.")
@click.option("--folder", type=click.Path(exists=True), help="Folder for temporary files.")
@click.option("--one-of", type=Path, hidden=True)
def main(
    images: int, num_masks: int, workers: int, folder: str | None, one_of: Path | None
) -> None:
    """Print a table with one row per start."""
    if one_of:
        run_processes(first_iteration, 0, find_place(os.environ), (one_of, workers))
        return
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        small, large = (Path(temporary, name, "annotations.json") for name in ("small", "large"))
        for path, size in ((small, (100, 470)), (large, (images, num_masks))):
            path.parent.mkdir()
            write_json(path, *size)
        print(f"{'':6} {'read s':>7} {'first iteration s':>18}  MB")
        for name, path in (("small", small), ("large", large), ("again", large)):
            found = start(path, workers)
            first = found[0]
            print(
                f"{name:6} {first['read']:>7.1f} {first['first_iteration']:>18.1f}"
                f"  peaks {megabytes(one['peak'] for one in found)}; private: processes"
                f" {megabytes(one['private'] for one in found)}, workers"
                f" {megabytes(size for one in found for size in one['workers'])}",
                flush=True,
            )
        mapped = large.with_suffix("") / FILE
        sizes = (path.stat().st_size / 2**20 for path in (large, mapped))
        print(f"json and mapped file: {megabytes(sizes)}")


if __name__ == "__main__":
    main()
