"""The inputs of the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SIDE, _SMALL_SIDE = 640, 360
_FEW = 3  # largest number of datasets with pictures of full size
Key = tuple[str, str]  # dataset, and the method or detector


@dataclass(frozen=True)
class Inputs:
    """The files shown by the report; sections without inputs are omitted.

    Attributes:
        metrics: dataset -> the json of ``cuvler metrics``.
        evaluations: (dataset, entry) -> the json of ``cuvler evaluation``, for curves.
        fine_tuning: dataset -> the metrics of fine-tuned detectors.
        image_roots: dataset -> its image root; only these datasets have galleries.
        ground_truth: dataset -> COCO json.
        listings: dataset -> its listing, by which only the shards of the images shown are opened;
            without it, all shards are.
        eigenvectors: (dataset, method, backbone) -> folder of the shards, ``.zarr.zip``.
        annotations: (dataset, method) -> annotations: merged pseudo-masks or those of a
            self-training round.
        predictions: (dataset, detector) -> COCO results.
        detectors: detector -> its folder, with detectron2's ``metrics.json``.
        benchmarks: folder of Snakemake's benchmark files, one subfolder per rule.
        gpus: rule -> GPUs held by each job; eigenvectors count only if their files state that they
            were extracted on a GPU.
        config: the config as text.
        images: number of images per gallery.
        score_threshold: detections with lower scores are not drawn.
    """

    metrics: Mapping[str, Path] = field(default_factory=dict)
    evaluations: Mapping[Key, Path] = field(default_factory=dict)
    fine_tuning: Mapping[str, Path] = field(default_factory=dict)
    image_roots: Mapping[str, Path] = field(default_factory=dict)
    ground_truth: Mapping[str, Path] = field(default_factory=dict)
    listings: Mapping[str, Path] = field(default_factory=dict)
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
        """Longer side of a picture in pixels; smaller if many datasets would make a large page."""
        return SIDE if len(self.image_roots) <= _FEW else _SMALL_SIDE


def of_dataset(files: Mapping[Key, Path], dataset: str) -> dict[str, Path]:
    """Return the files of one dataset by method or detector."""
    return {name: path for (of, name), path in files.items() if of == dataset}
