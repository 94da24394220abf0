"""Throughputs of one GPU or CPU core: known ones, and those of a run's own finished jobs."""

import csv
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cuvler.pseudo_masks.methods import find_method, method_names


@dataclass(frozen=True)
class Rate:
    """Throughput of one device, in images/s or TFLOP/s, and where the value comes from."""

    value: float
    source: str


_ZOO = "measured by detectron2's model zoo, Cascade Mask R-CNN R50-FPN on V100s"
_CORE = "measured on one core of an AMD EPYC"
_XEON = "measured on one core of an Intel Xeon"
# Of the peaks in NVIDIA's data sheet of the A100: 19.5 TFLOP/s in float32, 312 in float16.
_PEAK = "assumed, not measured: {share} of an A100's peak in {precision}, eigenvectors included"
# Those of pseudo-masks are declared by the methods.
RATES = {
    "gpu_tflops/float32": Rate(10, _PEAK.format(share="half", precision="float32")),
    "gpu_tflops/float16": Rate(40, _PEAK.format(share="an eighth", precision="float16")),
    "core_tflops": Rate(0.07, f"{_CORE}: ViT-S/16 and ViT-B/16 at 480 pixels"),
    "eigenvectors/pixels_p16": Rate(22, _CORE),
    "eigenvectors/pixels_p14": Rate(22, _CORE),
    "eigenvectors/pixels_p8": Rate(13, _CORE),
    "eigenvectors/colours_p8": Rate(23, f"{_XEON}: merge trees"),
    "eigenvectors/colours_p4": Rate(12, f"{_XEON}: merge trees"),
    "annotations": Rate(6_500, f"{_CORE}: 1.3 million images with 6 million masks"),
    "detector": Rate(16 / 8 / 0.328, f"{_ZOO}: 0.328 s for 16 images on 8"),
    "predictions": Rate(1 / 0.053, f"{_ZOO}: 0.053 s an image"),
}


def known_rates() -> dict[str, Rate]:
    """Return :data:`RATES` and the rates declared by methods."""
    methods = {name: find_method(name) for name in method_names()}
    declared = {f"pseudo_masks/{name}": Rate(*m.rate) for name, m in methods.items() if m.rate}
    return RATES | declared


@dataclass(frozen=True)
class Finished:
    """A finished job.

    Attributes:
        rate: name of the rate that it has measured.
        images: number of images processed.
        seconds: seconds of one GPU or core that this took.
    """

    rate: str
    images: float
    seconds: float


def measured_rates(jobs: Iterable[Finished]) -> dict[str, Rate]:
    """Return the throughput of each kind of finished jobs."""
    found: dict[str, list[Finished]] = {}
    for job in jobs:
        found.setdefault(job.rate, []).append(job)
    return {
        name: Rate(
            sum(job.images for job in done) / sum(job.seconds for job in done),
            f"measured by {len(done)} finished job{'s' if len(done) > 1 else ''} of this run",
        )
        for name, done in found.items()
    }


def job_seconds(benchmark: Path, gpus: int) -> float | None:
    """Return the device-seconds of a job from Snakemake's benchmark; None without a whole one.

    Args:
        benchmark: the file.
        gpus: number of GPUs that the job held; 0 gives the seconds of all cores.
    """
    try:
        with benchmark.open(encoding="utf-8", newline="") as stream:
            (line,) = csv.DictReader(stream, delimiter="\t")
        seconds = float(line["s"]) * gpus if gpus else float(line["cpu_time"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return seconds or None


def iteration_seconds(metrics: Path) -> float | None:
    """Return the median time of an iteration from a training's ``metrics.json``, if it has any."""
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
        times = [json.loads(line).get("time") for line in lines]
    except (FileNotFoundError, ValueError):
        return None
    return statistics.median([time for time in times if time] or [0]) or None
