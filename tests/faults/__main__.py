"""Damage every kind of file, kill every stage, and print what came of it: ``make fault-test``.

    python -m tests.faults --seed 0 --cases 30 --kills 5

Each case damages one file of a small run at random and runs one command that reads it. It is

- equal: the command gave what it gives without damage;
- named: it stopped with a message that names the file, or went on and its log names the file or
  counts an image that could not be used (the results name it);
- other: it stopped with a message that names something else;
- unseen: it gave something else of a file that has no checksum, and looks as right as before: it is
  not this program's (an image, a label), or only numbers of a JSON are different, which is what an
  edit looks like (docs/files.md, "Changed digits");
- silent: it gave something else, and said nothing;
- traceback: it ended in a traceback, or was ended by a signal.
"""

import argparse
import importlib
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from cuvler.image_status import USABLE, ImageStatus
from tests.faults import damage
from tests.faults.stages import STAGES, Stage, make_run, read_outputs, remove_outputs, run

OUTCOMES = ("equal", "named", "other", "unseen", "silent", "traceback")
KILLS = ("resumed, equal", "left a file that is not whole", "other bytes or failed")
DISKS = ("one message", "had room", "other", "silent", "traceback")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: in the table.
        path: of one of its files.
        damages: what can happen to it.
        stages: those that read it.
        foreign: whether this program did not write it, and it has no checksum.
    """

    name: str
    path: str
    damages: tuple[damage.Damage, ...]
    stages: tuple[str, ...]
    foreign: bool = False


_LEFT_OUT = re.compile(
    r"[1-9]\d* (?:" + "|".join(set(ImageStatus) - set(USABLE)) + "|images left out)"
)
_READ_IMAGES = ("eigenvectors", "pseudo-masks", "detector", "predictions")
KINDS = (
    Kind("image, PNG", "images/a.png", damage.ANY, _READ_IMAGES),
    Kind("image, JPEG", "images/b.jpg", damage.ANY, _READ_IMAGES, foreign=True),
    Kind(
        "listing",
        "listing.parquet",
        damage.ANY,
        ("eigenvectors", "pseudo-masks", "annotations", "predictions", "self-training"),
    ),
    Kind("eigenvectors", "pixels_p16/0.zarr.zip", damage.ANY, ("pseudo-masks",)),
    Kind("pseudo-masks", "masks/0.json", damage.JSON, ("annotations",)),
    Kind(
        "annotations",
        "annotations.json",
        damage.JSON,
        ("detector", "evaluation of masks", "self-training"),
    ),
    Kind(
        "ground truth",
        "truth.json",
        damage.JSON,
        ("images", "evaluation", "evaluation of masks"),
        foreign=True,
    ),
    Kind("predictions", "predictions.json", damage.JSON, ("evaluation", "self-training")),
    Kind("evaluation", "evaluation.json", damage.JSON, ("metrics",)),
    Kind("metrics", "metrics.json", damage.JSON, ("table", "model-card")),
    Kind("record of a training", "run/training.json", damage.JSON, ("model-card",)),
    Kind("detector's weights, .pth", "run/model_final.pth", damage.ANY, ("predictions",)),
    Kind("detector's config", "run/config.yaml", damage.TEXT, ("predictions",)),
    Kind("checkpoint", "resumed/checkpoint.pth", damage.ANY, ("detector, resumed",)),
    Kind("mapped annotations", "resumed/annotations.arrow", damage.ANY, ("detector, resumed",)),
    Kind(
        "fetched weights, .safetensors",
        "weights.safetensors",
        damage.ANY,
        ("detector from weights",),
    ),
    Kind(
        "fetched weights, legacy .pth",
        "legacy.pth",
        damage.ANY,
        ("detector from legacy weights",),
    ),
    Kind("archive, .zip", "a.zip", damage.ANY, ("unpack a.zip",)),
    Kind("archive, .tar.gz", "a.tar.gz", damage.ANY, ("unpack a.tar.gz",)),
    Kind("archive, .tar", "a.tar", damage.ANY, ("unpack a.tar",), foreign=True),
)


def damage_files(
    base: Path, work: Path, stages: Sequence[Stage], cases: int, seed: int
) -> Iterator[tuple[str, str, str]]:
    """Damage each kind of file that the stages read; yield (kind, outcome, description)."""
    quiet = {stage.name: _quiet_log(stage, base, work) for stage in stages}
    for kind in KINDS:
        readers = [name for name in kind.stages if name in quiet]
        if not readers:
            continue
        rng = random.Random(f"{seed}/{kind.name}")
        content = (base / kind.path).read_bytes()
        for _ in range(cases):
            change = rng.choice(kind.damages)
            stage = STAGES[rng.choice(readers)]
            changed = change(content, rng)
            folder = copy_run(base, work)
            remove_outputs(stage, folder)
            path = folder / kind.path
            path.unlink()  # hard links: the original must stay
            path.write_bytes(changed)
            status, log, _ = run(stage, folder)
            found = read_outputs(stage, folder)
            equal = found == read_outputs(stage, base)
            outcome = judge(status, log, path.name, equal, quiet[stage.name])
            edited = kind.damages is damage.JSON and damage.only_numbers_differ(content, changed)
            if outcome == "silent" and (kind.foreign or edited):
                outcome = "unseen"
            last = next(iter(log.strip().splitlines()[-1:]), "")
            yield kind.name, outcome, f"{change.__name__}, {stage.name}: {last[:300]}"


def judge(status: int, log: str, name: str, equal: bool, quiet: set[str]) -> str:
    if status < 0 or "Traceback (most recent call last)" in log:
        return "traceback"
    if status:
        message = log[log.rfind("Error: ") :]
        return "named" if name in message else "other"
    if equal:
        return "equal"
    new = [line for line in log.splitlines() if _without_numbers(line) not in quiet]
    said = any(name in line or _LEFT_OUT.search(line) for line in new)
    return "named" if said else "silent"


def _without_numbers(line: str) -> str:
    return re.sub(r"\d+", "#", line)


def _quiet_log(stage: Stage, base: Path, work: Path) -> set[str]:
    folder = copy_run(base, work)
    remove_outputs(stage, folder)
    return set(map(_without_numbers, run(stage, folder)[1].splitlines()))


def kill_stages(
    base: Path, work: Path, seconds: Mapping[str, float], kills: int, seed: int
) -> Iterator[tuple[str, str, str]]:
    """Kill each stage at random moments and repeat it; yield (stage, outcome, description)."""
    for stage in map(STAGES.__getitem__, seconds):
        rng = random.Random(f"{seed}/{stage.name}")
        expected = read_outputs(stage, base)
        for _ in range(kills):
            folder = copy_run(base, work)
            remove_outputs(stage, folder)
            moment = rng.uniform(0, seconds[stage.name])
            status, _, _ = run(stage, folder, kill_after=moment)
            left = read_outputs(stage, folder)
            whole = all(expected[name] == content for name, content in left.items())
            again, log, _ = run(stage, folder)
            same = read_outputs(stage, folder) == expected
            what = "ended before" if status == 0 else "killed"
            outcome = "resumed, equal" if again == 0 and same else "other bytes or failed"
            if not whole:
                outcome = "left a file that is not whole"
            yield stage.name, outcome, f"{what} at {moment:.2f} s: {log.strip()[-300:]}"


def fill_disk(base: Path, work: Path, stages: Sequence[Stage]) -> Iterator[tuple[str, str, str]]:
    """Run each stage where 0, 8 and 64 kB are free; yield (stage, outcome, description)."""
    disk = work / "disk"
    disk.mkdir()
    for stage in stages:
        for free in (0, 8, 64):
            command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
            if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
                return
            try:
                folder = Path(shutil.copytree(base, disk / "run"))
                remove_outputs(stage, folder)
                left = os.statvfs(disk)
                filler = left.f_bavail * left.f_frsize - free * 1024
                (disk / "filler").write_bytes(bytes(filler))
                status, log, _ = run(stage, folder, log=work / "log")
                whole = read_outputs(stage, folder) == read_outputs(stage, base)
            finally:
                subprocess.run(["umount", str(disk)], check=True)
            outcome = "one message" if "cannot be written" in log else "other"
            if status < 0 or "Traceback (most recent call last)" in log:
                outcome = "traceback"
            elif status == 0:
                outcome = "had room" if whole else "silent"
            yield stage.name, outcome, f"{free} kB free: {log.strip()[-300:]}"


def copy_run(base: Path, work: Path) -> Path:
    """Return a copy of the run, of hard links."""
    folder = work / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, copy_function=os.link)
    return folder


def table(counts: dict[str, Counter[str]], columns: tuple[str, ...]) -> str:
    rows = [("", *columns)]
    rows += [(name, *(str(found[column]) for column in columns)) for name, found in counts.items()]
    total = sum(counts.values(), Counter())
    rows.append(("all", *(str(total[column]) for column in columns)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def preload(stages: Sequence[Stage]) -> None:
    """Import once what the stages import; they run in copies of this process."""
    import torch

    from cuvler.cli import cuvler
    from cuvler.pseudo_masks import pool

    torch.set_num_threads(1)  # a copy has no threads
    # Its processes would take seconds to import everything, for each case.
    pool._CONTEXT = multiprocessing.get_context("fork")
    if any(stage.words[:1] == ("detector",) for stage in stages):
        importlib.import_module("cuvler.detector.train")
    for stage in stages:
        if stage.words:
            cuvler.get_command(click.Context(cuvler), stage.words[0])


def count(
    cases: Iterable[tuple[str, str, str]], fine: Collection[str]
) -> tuple[dict[str, Counter[str]], int]:
    """Count the outcomes of each row, and print those that are not fine."""
    counts: dict[str, Counter[str]] = {}
    bad = 0
    for row, outcome, description in cases:
        counts.setdefault(row, Counter())[outcome] += 1
        if outcome not in fine:
            bad += 1
            print(f"{outcome}: {row}: {description}", flush=True)
    return counts, bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=30, help="damaged files of each kind")
    parser.add_argument("--kills", type=int, default=5, help="kills of each stage")
    parser.add_argument("--disks", action="store_true", help="also full disks; needs root")
    parser.add_argument("--light", action="store_true", help="only what needs no detectron2")
    arguments = parser.parse_args()
    stages = [stage for stage in STAGES.values() if stage.light or not arguments.light]
    preload(stages)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cuvler.faults.") as folder:
        base, work = Path(folder, "run"), Path(folder)
        seconds = make_run(base, stages)
        damaged = damage_files(base, work, stages, arguments.cases, arguments.seed)
        killed = kill_stages(base, work, seconds, arguments.kills, arguments.seed)
        filled = fill_disk(base, work, stages) if arguments.disks else ()
        bad = 0
        for columns, fine, found in (
            (OUTCOMES, OUTCOMES[:2] + OUTCOMES[3:4], damaged),
            (KILLS, KILLS[:1], killed),
            (DISKS, DISKS[:2], filled),
        ):
            counts, failures = count(found, fine)
            bad += failures
            if counts:
                print(f"\n{table(counts, columns)}", flush=True)
    print(f"\nseed {arguments.seed}, {time.perf_counter() - start:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
