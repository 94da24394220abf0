"""Time Snakemake's plan of the default config, ImageNet's, and ``cuvler status`` during its run.

    python benchmarks/planning.py

The workflow is copied to a temporary folder. For ``status``, the listing and half of the shards
are there, with a log and a benchmark file each; no image is opened.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd

from cuvler.layout import LISTING, file_of
from cuvler.listing import write_listing
from cuvler.status import read_plan

REPOSITORY = Path(__file__).parents[1]
_IMAGES, _SHARDS = 1_281_167, 320
_SNAKEMAKE = [sys.executable, "-m", "snakemake"]
_STATUS = [sys.executable, "-c", "from cuvler.cli import main; main()", "status", "all"]


def run(folder: Path, words: list[str]) -> tuple[float, float, str]:
    """Run a command; return its wall and processor time in seconds, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise click.ClickException(result.stderr[-2000:])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used, result.stdout


def half_done(folder: Path) -> int:
    """Write what half a run leaves behind; return the number of planned files."""
    plan = read_plan(run(folder, [*_SNAKEMAKE, "all", "--detailed-summary"])[2])
    early = [row for row in plan if row[0] in ("weights", "images", "eigenvectors")]
    for number, (rule, name, _) in enumerate(early):
        file = file_of(rule, name)
        if rule == "eigenvectors" and number % 2:
            continue
        output = folder / name
        output.parent.mkdir(parents=True, exist_ok=True)
        if rule == LISTING.rule:
            _write_listing(output)
        else:
            output.touch()
        results = file.root_of(name)
        for path, text in (
            (file.log_of(name, results), "INFO x: 4003 ok\n"),
            (file.benchmark_of(name, results), "s\th:m:s\n60.5\t0:01:00\n"),
        ):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    return len(plan)


def _write_listing(path: Path) -> None:
    numbers = np.arange(1, _IMAGES + 1)
    names = [f"n{number // 1300:08d}/{number}.JPEG" for number in numbers]
    shards = (numbers - 1) * _SHARDS // _IMAGES
    rows = {"image_id": numbers, "file_name": names, "shard": shards.astype(np.int32)}
    write_listing(pd.DataFrame(rows), path)


@click.command()
def main() -> None:
    """Print one Markdown table."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in ("workflow", "config", "profiles"):
            shutil.copytree(REPOSITORY / part, folder / part)
        both = ["--config", "recipe=[cuvler, cutler]"]
        print("| command | wall | processor |")
        print("|---|---|---|")

        def show(name: str, words: list[str]) -> None:
            wall, processor, _ = run(folder, words)
            print(f"| {name} | {wall:.1f} s | {processor:.1f} s |", flush=True)

        show("snakemake -n all", [*_SNAKEMAKE, "-n", "-q", "all"])
        show("the same, both recipes", [*_SNAKEMAKE, "-n", "-q", "all", *both])
        files = half_done(folder)
        show(f"cuvler status, {files} files", _STATUS)
        show("cuvler status again", _STATUS)


if __name__ == "__main__":
    main()
