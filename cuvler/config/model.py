"""The model of the workflow's config.

``config/config.yaml``, ``workflow/schemas/config.schema.yaml`` and ``docs/configuration.md`` are
written from it by ``docs/configuration.py``.
"""

from functools import cache
from typing import Any, Literal

from pydantic import Field, create_model

from cuvler.config.datasets import Dataset, DatasetEntry, resolve
from cuvler.config.fields import CountOrZero, FileName, Names, PathText, Section, SomeNames, Text
from cuvler.config.sections import (
    CUTLER,
    CUVLER,
    Annotations,
    Detector,
    Download,
    Eigenvectors,
    Evaluation,
    FineTuning,
    Images,
    Predictions,
    PseudoMasks,
    Recipe,
    Report,
)
from cuvler.layout import GROUND_TRUTH, DetectorName
from cuvler.pseudo_masks.methods import SHARED_SETTINGS, Method, Name, find_method, method_names


class Settings(Section):
    """Settings of the cuvler workflow."""

    results: PathText = "results"
    """Folder of all outputs."""
    gpus: Literal["auto"] | CountOrZero = "auto"
    """GPUs of this machine that the jobs on it may use at the same time; a number, or auto: those
    that are visible (nvidia-smi and CUDA_VISIBLE_DEVICES). On a cluster, the cluster counts
    GPUs."""
    container: Text = "cuvler.sif"
    """Image in which `snakemake --software-deployment-method apptainer` runs the jobs: a file
    (docs/slurm.md says how to build it) or an address that Apptainer knows. Without that option it
    is not used."""
    recipe: Name | SomeNames = "cuvler"
    """The published system to run: cuvler or cutler, or [cuvler, cutler] to compare them in one
    table."""
    train: Name = "imagenet_train"
    """The dataset in which objects are discovered and from which the first detector learns."""
    evaluate: Names = ("coco_val",)
    """The datasets that detectors are scored on; they need ground truth. Empty: the detectors find
    objects in the images of `train`, and are not scored."""
    datasets_root: PathText = "datasets"
    """Folder that relative paths of datasets start from."""
    datasets: dict[Name, PathText | DatasetEntry] = Field(default={})
    """Your own data: one entry, a folder of images (searched at any depth) or a COCO json ...
      my_photos: /data/photos
      my_coco: /data/coco/annotations.json       (its file_names start at the json's folder)
    ... or the long form:
      my_photos:
        images: /data/photos                     folder that the file names start from
        ground_truth: /data/photos/labels.json   COCO json, which also lists the images
        ids: order                               image ids: order | digits | ground_truth
        shards: 16                               number of jobs the dataset is split into
    The datasets of both papers are known by name: config/datasets.yaml. docs/configuration.md lists
    all keys of an entry."""
    download: dict[FileName, Download] = Field(default={})
    """Files to fetch to resources/downloads/ under a name of your own, in addition to those that
    `cuvler download` lists. They are fetched if another setting names them, as detector.weights
    may.
      cuvler.pth: {url: "gdrive:1aB...", sha256: 0f3c...}
      cuvler.pth: {url: https://example.org/model_final.pth}"""
    images: Images = Images()
    eigenvectors: Eigenvectors = Eigenvectors()
    pseudo_masks: PseudoMasks = PseudoMasks()
    annotations: Annotations = Annotations()
    detector: Detector = Detector()
    predictions: Predictions = Predictions()
    evaluation: Evaluation = Evaluation()
    fine_tuning: FineTuning = FineTuning()
    report: Report = Report()
    recipes: dict[Name, Recipe] = Field(default={"cuvler": CUVLER, "cutler": CUTLER})
    """Parts of each recipe."""

    @property
    def recipe_names(self) -> tuple[str, ...]:
        """The recipes to run, in order."""
        return (self.recipe,) if isinstance(self.recipe, str) else self.recipe

    def dataset(self, name: str) -> Dataset:
        """Resolve the entry of a dataset: short or long form, paths against ``datasets_root``."""
        return resolve(
            name,
            self.datasets[name],
            root=self.datasets_root,
            made=GROUND_TRUTH.under(self.results, dataset=name),
            shards=self.images.shards,
        )

    def self_training_dataset(self, recipe: str) -> str:
        """The dataset that a recipe's self-training rounds learn from."""
        return self.recipes[recipe].self_training.dataset or self.train

    def first_round(self, recipe: str) -> int:
        """The first round in which a recipe trains a detector.

        It is 1 if self-training starts from predictions of a detector trained elsewhere.
        """
        given = self.dataset(self.self_training_dataset(recipe)).predictions is not None
        return int(given and self.recipes[recipe].self_training.rounds > 0)

    def detector_config(self, detector: DetectorName) -> str:
        """The detector config that a detector is trained with."""
        if detector.percent is not None:
            return self.fine_tuning_detector_config(detector.percent)
        recipe = self.recipes[detector.recipe]
        return (recipe if detector.round == 0 else recipe.self_training).detector_config

    def fine_tuning_detector_config(self, percent: int) -> str:
        """The detector config that learns from a percentage of the labels."""
        return self.fine_tuning.detector_config.replace("PERCENT", str(percent))

    def gpus_by_rule(self) -> dict[str, int]:
        """GPUs that a job of each rule uses; rules that are left out need none."""
        return {
            "eigenvectors": 0 if self.eigenvectors.device == "cpu" else 1,
            "detector": self.detector.num_gpus,
            "predictions": self.predictions.num_gpus,
            "fine_tuning": self.detector.num_gpus,
            "fine_tuning_predictions": self.predictions.num_gpus,
            "reproduction_predictions": self.predictions.num_gpus,
        }

    def local_gpus(self) -> int:
        """GPUs that the jobs on this machine may use at the same time."""
        from cuvler.gpus import visible_gpus

        return len(visible_gpus()) if self.gpus == "auto" else self.gpus


def settings_model() -> type[Settings]:
    """Return the model with a section for each installed method."""
    return _with_methods(tuple(find_method(name) for name in method_names()))


@cache
def _with_methods(methods: tuple[type[Method], ...]) -> type[Settings]:
    # A method may have settings without defaults: an empty section is an error then.
    empty = Field(default={}, validate_default=True)
    sections: dict[str, Any] = {method.name: (_section(method), empty) for method in methods}
    pseudo_masks = create_model(
        "PseudoMasks", __base__=PseudoMasks, __doc__=PseudoMasks.__doc__, **sections
    )
    return create_model(
        "Settings", __base__=Settings, __doc__=Settings.__doc__, pseudo_masks=(pseudo_masks, empty)
    )


def _section(method: type[Method]) -> type[Section]:
    """Return the section of a method: its settings without the shared ones."""
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in method.model_fields.items()
        if name not in SHARED_SETTINGS
    }
    summary = (method.__doc__ or method.name).splitlines()[0]
    return create_model(method.__name__, __base__=Section, __doc__=summary, **fields)
