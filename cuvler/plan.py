"""Estimate the jobs, hours, bytes and files of each stage before a run.

The jobs are those planned by Snakemake. The estimates follow from the number of images per job and
from throughputs of one GPU or CPU core; see :mod:`cuvler.rates`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cuvler.config import Settings
from cuvler.eigenvectors.backbones import BACKBONES, BackboneSpec, backbone_spec
from cuvler.errors import ConfigError, DataError
from cuvler.layout import DetectorName, file_of
from cuvler.rates import Finished, Rate, iteration_seconds, job_seconds, measured_rates

# Number of images of well-known datasets, from their publications.
IMAGES = {
    "imagenet_train": 1_281_167,
    "imagenet_val": 50_000,
    "coco_train": 118_287,
    "coco_val": 5_000,
    "coco20k": 19_817,
    "lvis_val": 19_809,
    "voc07": 9_963,
    "clipart": 1_000,
    "comic": 2_000,
    "watercolor": 2_000,
    "kitti": 7_481,
    "objects365_val": 80_000,
    "openimages_val": 41_620,
}


# Bytes of a mask's record with its run-length encoding; masks and predictions per image; bytes of
# an image's record and of a detector, which is stored as .pth and as .safetensors.
_MASK_BYTES = 600
_MASKS = 5
_PREDICTIONS = 100
_IMAGE_BYTES = 130
_DETECTOR_BYTES = 2 * 310_000_000
# Layers and channels of the table's ViTs, by the size in timm's names.
_VITS = {"small": (12, 384), "base": (12, 768), "large": (24, 1024)}

# Stages with one row per value of a wildcard.
_SPLIT_BY = {"eigenvectors": ("backbone",), "pseudo_masks": ("method",)}


@dataclass
class Row:
    """One stage's share of a run.

    Attributes:
        stage: the rule, with the backbone for eigenvectors and the method for pseudo-masks.
        jobs: number of jobs.
        images: number of images processed; for detectors, iterations x batch size.
        gpu_hours: GPU-hours, of all nodes.
        cpu_hours: core-hours of jobs without a GPU.
        longest: hours of the longest job, with all its GPUs on all its nodes, or on one core.
        size: bytes written.
        files: number of files written, including logs and benchmarks.
    """

    stage: str
    jobs: int = 0
    images: float = 0
    gpu_hours: float = 0
    cpu_hours: float = 0
    longest: float = 0
    size: float = 0
    files: int = 0


class Training(NamedTuple):
    """The schedule of a detector."""

    iterations: int
    batch: int


@dataclass(frozen=True)
class Work:
    """What a job does.

    Attributes:
        images: number of images processed; for detectors, iterations x batch size.
        size: bytes written.
        rate: name of its throughput in images/s; empty for jobs of no length.
        gpus: number of GPUs that it holds, on all nodes; 0 if it runs on the CPU.
        tflop: a ViT's TFLOP per image; 0 for other jobs.
    """

    images: float
    size: float
    rate: str = ""
    gpus: int = 0
    tflop: float = 0


@dataclass(frozen=True)
class Planner:
    """Estimates the cost of jobs.

    Attributes:
        settings: the workflow's settings.
        sizes: number of images of each dataset in the plan.
        rates: throughputs by name, see :mod:`cuvler.rates`.
        training: maps a detector's name to its schedule.
    """

    settings: Settings
    sizes: Mapping[str, int]
    rates: Mapping[str, Rate]
    training: Callable[[DetectorName], Training]
    used: set[str] = field(default_factory=set)

    def rows(self, outputs: Iterable[tuple[str, Path]]) -> list[Row]:
        """Return one row per stage, in order, for planned files given as (rule, output)."""
        rows: dict[str, Row] = {}
        known = set()
        for rule, output in outputs:
            file = file_of(rule, output)
            names = file.names(output)
            stage = " ".join([rule, *(names[name] for name in _SPLIT_BY.get(rule, ()))])
            row = rows.setdefault(stage, Row(stage))
            row.files += 1
            # A job that makes several files has one log.
            if (job := file.log_of(output, "")) in known:
                continue
            known.add(job)
            row.jobs += 1
            row.files += 1  # its log
            if work := self._work(rule, names):
                row.files += 1  # a benchmark
                self._enter(row, work)
        return list(rows.values())

    def measured(self, outputs: Iterable[tuple[str, Path]]) -> dict[str, Rate]:
        """Return the rates of finished jobs, given as (rule, output).

        Snakemake's benchmarks have their times. That of a resumed training has only the last part:
        its rate is taken from the times of its iterations.
        """
        on_gpu: dict[str, bool] = {}
        finished = []
        for rule, output in outputs:
            file = file_of(rule, output)
            names = file.names(output)
            work = self._work(rule, names)
            if work is None or not work.rate:
                continue
            if work.rate == "detector":
                times = iteration_seconds(output.with_name("metrics.json"))
                seconds = times and times * self._schedule(names).iterations * max(work.gpus, 1)
            else:
                seconds = job_seconds(file.benchmark_of(output, self.settings.results), work.gpus)
            if not seconds:
                continue
            # Of a device that is chosen by what the machine has.
            if rule == "eigenvectors" and work.gpus and work.rate not in on_gpu:
                on_gpu[work.rate] = _ran_on_gpu(output)
            if on_gpu.get(work.rate, True):
                finished.append(Finished(work.rate, work.images, seconds))
        return measured_rates(finished)

    def _work(self, rule: str, names: Mapping[str, str]) -> Work | None:
        work = {
            "eigenvectors": self._eigenvectors,
            "pseudo_masks": self._pseudo_masks,
            "annotations": self._annotations,
            "detector": self._detector,
            "fine_tuning": self._detector,
            "predictions": self._predictions,
            "fine_tuning_predictions": self._predictions,
            "reproduction_predictions": self._predictions,
            "self_training": self._self_training,
        }.get(rule)
        return None if work is None else work(names)

    def _enter(self, row: Row, work: Work) -> None:
        row.images += work.images
        row.size += work.size
        if not work.rate:
            return
        if work.tflop and work.rate not in self.rates:
            half = self.settings.eigenvectors.precision != "float32"
            tflops = f"gpu_tflops/{'float16' if half else 'float32'}"
            hours = work.images * work.tflop / self._rate(tflops if work.gpus else "core_tflops")
        else:
            hours = work.images / self._rate(work.rate)
        hours /= 3600
        if work.gpus:
            row.gpu_hours += hours
        else:
            row.cpu_hours += hours
        row.longest = max(row.longest, hours / max(work.gpus, 1))

    def _rate(self, name: str) -> float:
        self.used.add(name)
        if name not in self.rates:
            raise ConfigError(_no_rate(name), parameter="rate")
        return self.rates[name].value

    def _gpus(self, rule: str) -> int:
        return self.settings.gpus_by_rule()[rule]

    def _shard(self, dataset: str) -> float:
        return self.sizes[dataset] / self.settings.dataset(dataset).shards

    def _eigenvectors(self, names: Mapping[str, str]) -> Work:
        dataset, name, backbone = names["dataset"], names["method"], names["backbone"]
        spec = backbone_spec(backbone, self.settings.eigenvectors.definitions)
        images = self._shard(dataset)
        need = self.settings.pseudo_masks.method(name).needs()[backbone]
        height, width = spec.grid
        rate = f"eigenvectors/{backbone}"
        return Work(
            images,
            size=images * (4 * need.k * height * width + 26),
            rate=rate,
            gpus=0 if spec.timm is None else self._gpus("eigenvectors"),
            tflop=0 if rate in self.rates else _teraflop(spec),
        )

    def _pseudo_masks(self, names: Mapping[str, str]) -> Work:
        images, name = self._shard(names["dataset"]), names["method"]
        size = images * (_IMAGE_BYTES + self._masks(name) * _MASK_BYTES)
        return Work(images, size, f"pseudo_masks/{name}")

    def _annotations(self, names: Mapping[str, str]) -> Work:
        images, name = self.sizes[names["dataset"]], names["method"]
        size = images * (_IMAGE_BYTES + self._masks(name) * _MASK_BYTES)
        return Work(images, size, "annotations")

    def _detector(self, names: Mapping[str, str]) -> Work:
        schedule = self._schedule(names)
        gpus = self._gpus("detector") * self.settings.detector.nodes
        return Work(schedule.iterations * schedule.batch, _DETECTOR_BYTES, "detector", gpus)

    def _schedule(self, names: Mapping[str, str]) -> Training:
        return self.training(DetectorName.parse(names.get("fine_tuned") or names["detector"]))

    def _predictions(self, names: Mapping[str, str]) -> Work:
        images = self.sizes[names["dataset"]]
        size = images * _PREDICTIONS * _MASK_BYTES
        return Work(images, size, "predictions", self._gpus("predictions"))

    def _self_training(self, names: Mapping[str, str]) -> Work:
        recipe = DetectorName.parse(names["detector"]).recipe
        images = self.sizes[self.settings.self_training_dataset(recipe)]
        return Work(images, images * (_IMAGE_BYTES + _MASKS * _MASK_BYTES))

    def _masks(self, name: str) -> float:
        return self.settings.pseudo_masks.method(name).masks_per_image


def _ran_on_gpu(eigenvectors: Path) -> bool:
    from cuvler.eigenvectors.store import open_eigenvectors

    try:
        with open_eigenvectors(eigenvectors) as store:
            return str(store.attributes.get("device")).startswith("cuda")
    except DataError:
        return False


def _no_rate(name: str) -> str:
    return f"no rate is known for {name}; give {name}=NUMBER, in images per second"


def _layers(spec: BackboneSpec) -> tuple[int, int]:
    """Return the number of layers that an image passes, and their channels."""
    if spec.timm is None:
        raise ConfigError(_no_rate(f"eigenvectors/{spec.name}"), parameter="rate")
    if spec == BACKBONES.get(spec.name):  # timm takes seconds to import
        sizes = (size for name, size in _VITS.items() if f"_{name}_" in spec.timm)
        return next(sizes)
    from cuvler.eigenvectors.timm_models import find_timm_model

    model = find_timm_model(spec.timm)
    try:
        return model.index(spec.layer) + 1, model.channels
    except ConfigError as error:
        raise ConfigError(f"backbone {spec.name!r}: {error}") from error


def _teraflop(spec: BackboneSpec) -> float:
    """Return the TFLOP of a ViT's forward pass on one image: projections and attention."""
    layers, channels = _layers(spec)
    tokens = spec.grid[0] * spec.grid[1] + 1
    return layers * (24 * tokens * channels**2 + 4 * tokens**2 * channels) / 1e12
