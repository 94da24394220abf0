"""Estimate the jobs, hours, bytes and files of each stage before a run.

The jobs are those planned by Snakemake. The estimates follow from the number of images per job and
from throughputs of one GPU or CPU core.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cuvler.config import Settings
from cuvler.eigenvectors.backbones import BackboneSpec, backbone_spec
from cuvler.errors import ConfigError
from cuvler.layout import DetectorName, file_of
from cuvler.pseudo_masks.methods import find_method, method_names

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


@dataclass(frozen=True)
class Rate:
    """Throughput of one device, in images/s or TFLOP/s, and where the value comes from."""

    value: float
    source: str


_ZOO = "detectron2's model zoo, Cascade Mask R-CNN R50-FPN on V100s"
_CORE = "measured on one core of an AMD EPYC"
RATES = {
    "gpu_tflops": Rate(10, "assumed, not measured: what an A100 sustains in float32"),
    "core_tflops": Rate(0.07, f"{_CORE}: ViT-S/16 and ViT-B/16 at 480 pixels"),
    "eigenvectors/pixels_p16": Rate(22, _CORE),
    "eigenvectors/pixels_p14": Rate(22, _CORE),
    "eigenvectors/pixels_p8": Rate(13, _CORE),
    "annotations": Rate(6_500, f"{_CORE}: 1.3 million images with 6 million masks"),
    "detector": Rate(16 / 8 / 0.328, f"{_ZOO}: 0.328 s for 16 images on 8"),
    "predictions": Rate(1 / 0.053, f"{_ZOO}: 0.053 s an image"),
}


def known_rates() -> dict[str, Rate]:
    """Return :data:`RATES` and the rates declared by methods."""
    methods = {name: find_method(name) for name in method_names()}
    declared = {f"pseudo_masks/{name}": Rate(*m.rate) for name, m in methods.items() if m.rate}
    return RATES | declared


# Bytes of a mask's record with its run-length encoding; masks and predictions per image; bytes of
# an image's record and of a detector.
_MASK_BYTES = 600
_MASKS = 5
_PREDICTIONS = 100
_IMAGE_BYTES = 130
_DETECTOR_BYTES = 310_000_000
# Layers and channels of ViTs, by the size in timm's names.
_VITS = {"small": (12, 384), "base": (12, 768), "large": (24, 1024), "giant": (40, 1536)}

# Stages with one row per value of a wildcard.
_SPLIT_BY = {"eigenvectors": ("backbone",), "pseudo_masks": ("method",)}


@dataclass
class Row:
    """One stage's share of a run.

    Attributes:
        stage: the rule, with the backbone for eigenvectors and the method for pseudo-masks.
        jobs: number of jobs.
        images: number of images processed; for detectors, iterations x batch size.
        gpu_hours: GPU-hours.
        cpu_hours: core-hours of jobs without a GPU.
        size: bytes written.
        files: number of files written, including logs and benchmarks.
    """

    stage: str
    jobs: int = 0
    images: float = 0
    gpu_hours: float = 0
    cpu_hours: float = 0
    size: float = 0
    files: int = 0


@dataclass(frozen=True)
class Planner:
    """Estimates the cost of jobs.

    Attributes:
        settings: the workflow's settings.
        sizes: number of images of each dataset in the plan.
        rates: throughputs by name, see :func:`known_rates`.
        training: maps a detector's name to its training images (iterations x batch size).
    """

    settings: Settings
    sizes: Mapping[str, int]
    rates: Mapping[str, Rate]
    training: Callable[[DetectorName], float]
    used: set[str] = field(default_factory=set)

    def rows(self, outputs: Iterable[tuple[str, Path]]) -> list[Row]:
        """Return one row per stage, in order, for planned files given as (rule, output)."""
        rows: dict[str, Row] = {}
        known = set()
        for rule, output in outputs:
            file = file_of(rule, output)
            names = file.names(output)
            estimate = {
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
            stage = " ".join([rule, *(names[name] for name in _SPLIT_BY.get(rule, ()))])
            row = rows.setdefault(stage, Row(stage))
            row.files += 1
            # A job that makes several files has one log.
            if (job := file.log_of(output, "")) in known:
                continue
            known.add(job)
            row.jobs += 1
            row.files += 2 if estimate else 1  # a log, and for longer jobs a benchmark
            if estimate:
                estimate(row, names)
        return list(rows.values())

    def _rate(self, name: str) -> float:
        self.used.add(name)
        if name not in self.rates:
            raise ConfigError(_no_rate(name), parameter="rate")
        return self.rates[name].value

    def _on_gpu(self, rule: str) -> bool:
        return self.settings.gpus_by_rule()[rule] > 0

    def _shard(self, dataset: str) -> float:
        return self.sizes[dataset] / self.settings.dataset(dataset).shards

    def _eigenvectors(self, row: Row, names: Mapping[str, str]) -> None:
        dataset, name, backbone = names["dataset"], names["method"], names["backbone"]
        spec = backbone_spec(backbone, self.settings.eigenvectors.model_dump()["definitions"])
        images = self._shard(dataset)
        on_gpu = self._on_gpu("eigenvectors")
        row.images += images
        if f"eigenvectors/{backbone}" in self.rates:
            seconds = images / self._rate(f"eigenvectors/{backbone}")
        else:
            tflops = self._rate("gpu_tflops" if on_gpu else "core_tflops")
            seconds = images * _teraflop(spec) / tflops
        self._spend(row, seconds, on_gpu and spec.timm is not None)
        need = self.settings.pseudo_masks.method(name).needs()[backbone]
        height, width = spec.grid
        row.size += images * (4 * need.k * height * width + 26)

    def _pseudo_masks(self, row: Row, names: Mapping[str, str]) -> None:
        dataset, name = names["dataset"], names["method"]
        images = self._shard(dataset)
        row.images += images
        self._spend(row, images / self._rate(f"pseudo_masks/{name}"), False)
        row.size += images * (_IMAGE_BYTES + self._masks(name) * _MASK_BYTES)

    def _annotations(self, row: Row, names: Mapping[str, str]) -> None:
        dataset, name = names["dataset"], names["method"]
        row.images += self.sizes[dataset]
        self._spend(row, self.sizes[dataset] / self._rate("annotations"), False)
        row.size += self.sizes[dataset] * (_IMAGE_BYTES + self._masks(name) * _MASK_BYTES)

    def _detector(self, row: Row, names: Mapping[str, str]) -> None:
        images = self.training(DetectorName.parse(names.get("fine_tuned") or names["detector"]))
        row.images += images
        self._spend(row, images / self._rate("detector"), self._on_gpu("detector"))
        row.size += _DETECTOR_BYTES

    def _predictions(self, row: Row, names: Mapping[str, str]) -> None:
        images = self.sizes[names["dataset"]]
        row.images += images
        self._spend(row, images / self._rate("predictions"), self._on_gpu("predictions"))
        row.size += images * _PREDICTIONS * _MASK_BYTES

    def _self_training(self, row: Row, names: Mapping[str, str]) -> None:
        recipe = DetectorName.parse(names["detector"]).recipe
        dataset = self.settings.self_training_dataset(recipe)
        row.images += self.sizes[dataset]
        row.size += self.sizes[dataset] * (_IMAGE_BYTES + _MASKS * _MASK_BYTES)

    def _masks(self, name: str) -> float:
        return self.settings.pseudo_masks.method(name).masks_per_image

    @staticmethod
    def _spend(row: Row, seconds: float, on_gpu: bool) -> None:
        if on_gpu:
            row.gpu_hours += seconds / 3600
        else:
            row.cpu_hours += seconds / 3600


def _no_rate(name: str) -> str:
    return f"no rate is known for {name}; give {name}=NUMBER, in images per second"


def _teraflop(spec: BackboneSpec) -> float:
    """Return the TFLOP of a ViT's forward pass on one image: projections and attention."""
    sizes = [size for name, size in _VITS.items() if spec.timm and f"_{name}_" in spec.timm]
    if not sizes:
        raise ConfigError(_no_rate(f"eigenvectors/{spec.name}"), parameter="rate")
    layers, channels = sizes[0]
    tokens = spec.grid[0] * spec.grid[1] + 1
    return layers * (24 * tokens * channels**2 + 4 * tokens**2 * channels) / 1e12
