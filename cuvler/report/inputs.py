"""What the report is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SIDE, _SMALL_SIDE = 640, 360
_FEW = 3  # datasets whose pictures are shown at their full size
Key = tuple[str, str]  # dataset, and the method or detector


@dataclass(frozen=True)
class Inputs:
    """The report's files; what is not given is left out of the page.

    Attributes:
        metrics: dataset -> the json of ``cuvler metrics``.
        evaluations: (dataset, entry of its metrics) -> the json of ``cuvler evaluation``, for its
            curves.
        fine_tuning: dataset -> the metrics of detectors that learned classes.
        image_roots: dataset -> the folder its file names start from; only these have galleries.
        ground_truth: dataset -> COCO json.
        eigenvectors: (dataset, method, backbone) -> the folder of the shards, ``.zarr.zip``.
        annotations: (dataset, method) -> COCO annotations: pseudo-masks, or what a round of
            self-training learns from.
        predictions: (dataset, detector) -> COCO results.
        detectors: detector -> its folder, with detectron2's ``metrics.json``.
        benchmarks: folder of Snakemake's benchmark files, one sub-folder a rule.
        gpus: rule -> how many GPUs each of its jobs held; eigenvectors count if their files say
            that they were extracted on one.
        config: the run's settings as text, shown as they are.
        images: how many images a gallery shows.
        score_threshold: detections under this score are not drawn.
    """

    metrics: Mapping[str, Path] = field(default_factory=dict)
    evaluations: Mapping[Key, Path] = field(default_factory=dict)
    fine_tuning: Mapping[str, Path] = field(default_factory=dict)
    image_roots: Mapping[str, Path] = field(default_factory=dict)
    ground_truth: Mapping[str, Path] = field(default_factory=dict)
    eigenvectors: Mapping[tuple[str, str, str], Path] = field(default_factory=dict)
    annotations: Mapping[Key, Path] = field(default_factory=dict)
    predictions: Mapping[Key, Path] = field(default_factory=dict)
    detectors: Mapping[str, Path] = field(default_factory=dict)
    benchmarks: Path | None = None
    gpus: Mapping[str, int] = field(default_factory=dict)
    config: str = ""
    images: int = 8
    score_threshold: float = 0.3

    @property
    def side(self) -> int:
        """Pixels of a picture's longer side: pages of many datasets must open on a phone too."""
        return SIDE if len(self.image_roots) <= _FEW else _SMALL_SIDE


def of_dataset(files: Mapping[Key, Path], dataset: str) -> dict[str, Path]:
    """Pick one dataset's files, by method or detector."""
    return {name: path for (of, name), path in files.items() if of == dataset}
