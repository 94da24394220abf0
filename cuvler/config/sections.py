"""The sections of the config: keys, defaults, allowed values and documentation."""

from typing import Annotated, Literal

from pydantic import Field

from cuvler.config.fields import (
    Address,
    Count,
    CountOrZero,
    NameOrNone,
    Names,
    Options,
    PathText,
    Section,
    Sha256,
    Shards,
    Share,
)
from cuvler.eigenvectors.backbones import EPS, TAU, BackboneDefinition, own_graph
from cuvler.image_access import MAX_PIXELS
from cuvler.pseudo_masks.crf import CrfSetting
from cuvler.pseudo_masks.methods import (
    SHARED_SETTINGS,
    Distinct,
    Method,
    Name,
    NoRepeats,
    find_method,
    make_method,
)


class Download(Section):
    """A file to fetch."""

    url: Address
    """URL of the file."""
    sha256: Sha256 | None = None
    """Expected SHA-256 of the file."""


class Images(Section):
    """Listing and opening the images of the datasets."""

    shards: Shards = 4
    """Number of jobs per dataset, unless set in the dataset's entry."""
    max_pixels: Count = MAX_PIXELS
    """Images with more pixels are not decoded; their status is unreadable. The masks of 100
    million pixels take some GB."""
    allow_outside: bool = False
    """Whether a COCO json may name images outside its image root: absolute paths, or with `..`.
    Allow it only for files that you trust."""


class Eigenvectors(Section):
    """Features of patches by self-supervised ViTs, and normalized cuts of their graphs."""

    definitions: dict[Name, BackboneDefinition] = Field(default={})
    """Settings by backbone. Of known ones, those that differ from docs/backbones.md:
      dinov3_b16: {tau: 0.5, size: 896}
    Further ViTs of timm, under names of your own, need at least these three:
      mine: {timm: vit_small_patch16_224.augreg_in21k, feature: patch_tokens, size: 480}
    ViTs known by name: dino_s16 dino_s8 dino_b16 dino_b8 dinov2_s14 dinov2_b14 dinov2_l14
    dinov2_s14_reg dinov2_b14_reg dinov2_l14_reg dinov3_s16 dinov3_b16 dinov3_l16 mae_b16 mae_l16
    deit_s16 deit_b16. Without weights, for trying things out: pixels_p16 pixels_p14
    pixels_p8, and for the method agglomerative also colours_p8 colours_p4."""
    weights: dict[Name, PathText] = Field(default={})
    """Local weight files by backbone (.safetensors or .pth). Others are downloaded once from the
    hub, on the machine that Snakemake runs on.
      dino_s8: /models/dino_deitsmall8_pretrain.pth"""
    tau: Annotated[float, Field(ge=-1, le=1)] = TAU
    """Patches are joined by an edge of weight 1 if the cosine of their features is above tau, and
    of weight eps otherwise. For the backbones that have no tau of their own: dinov3_* have."""
    eps: Annotated[float, Field(gt=0, lt=1)] = EPS
    """Weight of the other edges, for the backbones that have no eps of their own."""
    batch_size: CountOrZero = 0
    """Images per forward pass; 0 chooses by free memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU if there is one."""
    precision: Literal["auto", "float32", "float16"] = "auto"
    """Precision of the ViTs. auto: float16 (mixed precision) on GPUs with tensor cores, which are
    several times faster with it, float32 elsewhere. Rounding of the size of float16's changed the
    cosine of 84 of 85 eigenvectors by less than 1e-4, and of the other by 1.2e-4."""

    def graph(self, backbone: str) -> dict[str, float]:
        """Return tau and eps of a backbone's graphs: its own, else those of all."""
        return {"tau": self.tau, "eps": self.eps} | own_graph(backbone, self.definitions)


class PseudoMasks(Section):
    """Making masks from eigenvectors. Each method has a section with its settings."""

    crf: CrfSetting = "fast"

    def method(self, name: str) -> Method:
        """Return a method with the settings of its section and the shared ones.

        Raises:
            ConfigError: there is no such method, or its settings do not fit together.
        """
        fields = find_method(name).model_fields
        shared = {key: getattr(self, key) for key in SHARED_SETTINGS if key in fields}
        own = getattr(self, name).model_dump()
        return make_method(name, shared | own, where=f"pseudo_masks.{name}")


class Annotations(Section):
    """Merging the pseudo-masks of a dataset into one COCO json."""

    max_failed: Share = 0.01
    """Maximum share of images that are missing, unreadable or failed. Merging pseudo-masks and
    predicting stop with an error if there are more."""


class Detector(Section):
    """Training detectors."""

    weights: str = "dino_resnet50"
    """Initial weights of the first detector: dino_resnet50 (fetched), or a .pth, .pkl or
    .safetensors file. Empty: random weights, which suit small detectors only."""
    nodes: Count = 1
    """Machines that train each detector together. More than 1 needs profiles/slurm, with as many
    GPUs in gres as `num_gpus`."""
    num_gpus: CountOrZero = 8
    """GPUs of each machine to train on; 0 uses the CPU. A batch is divided among all: nodes 2 and
    num_gpus 8 train on 16 GPUs, with one image of a published batch on each."""
    workers: CountOrZero = 4
    """Data-loading processes for each GPU."""
    validation: NameOrNone = ""
    """A dataset with ground truth that detectors are scored on while they train: every
    TEST.EVAL_PERIOD iterations (5000) and at the end. Empty: they are scored only afterwards."""
    opts: Options = ()
    """detectron2 settings that override those of the detector config: [SOLVER.MAX_ITER, 40000].
    Keys and types are checked before any job.
    Weights in a legacy format, which run code, are refused without their sha256:
    [MODEL.UNPICKLE_SHA256, 9f86...]"""


class Predictions(Section):
    """Predicting with a trained detector."""

    batch_size: Count = 8
    """Images per forward pass."""
    num_gpus: CountOrZero = 1
    """GPUs of one machine, one process each; 0 uses the CPU."""
    tta: bool = False
    """Test-time augmentation: average over several sizes and mirrored images, many times slower.
    The papers' numbers, and ours, are without."""


class Evaluation(Section):
    """Scoring against ground truth."""

    pseudo_masks: Names = ()
    """Datasets with ground truth on which pseudo-masks are scored. Of datasets that are not in
    `evaluate` only pseudo-masks are scored, without any training:
    snakemake results/my_photos_metrics.json"""


class FineTuning(Section):
    """Learning classes from labels, starting from the last detector of each recipe (CutLER's
    semi-supervised experiments): snakemake results/fine_tuning/coco_val_metrics.json"""

    dataset: Name = "coco_train"
    """The labelled dataset."""
    percents: Annotated[tuple[Annotated[int, Field(ge=1, le=100)], ...], Distinct, NoRepeats] = (
        1,
        2,
        5,
        10,
        20,
        30,
        40,
        50,
        60,
        80,
        100,
    )
    """The percentages of the labelled images to learn from, one experiment each."""
    seed: int = 0
    """Chooses the images. A larger percentage includes the images of a smaller one."""
    detector_config: Name = "semi_supervised_PERCENT"
    """The detectron2 yaml (cuvler/detector/configs); PERCENT stands for the number."""
    validation: NameOrNone = "coco_val"
    """A dataset with the same categories that the detectors are scored on while they train; see
    detector.validation."""
    opts: Options = ()
    """detectron2 settings that override those of the detector config."""
    evaluate: Names = ()
    """Datasets with the same categories that the target `all` scores these detectors on. Empty:
    `all` leaves fine-tuning out."""


class Report(Section):
    """The report of a run."""

    images: Count = 8
    """Images in each gallery."""


class SelfTraining(Section):
    """Training further detectors on predictions."""

    detector_config: Name
    """The detectron2 yaml of the detector of each round."""
    rounds: CountOrZero
    """Rounds after the first detector; 0 stops at the zero-shot detector."""
    dataset: NameOrNone
    """The dataset to predict on and learn from. Empty: the one of `train`."""
    detections_per_image: Count
    """The number of predictions of each image to learn from, the best first."""
    score_thresholds: Annotated[tuple[Share, ...], Field(min_length=1)]
    """Predictions below this score are not learned from. One value for each round; the last one
    stays."""
    keep_previous: bool
    """Learn from the previous annotations too, where no prediction replaces them. Needs the
    dataset of `train`."""

    def score_threshold(self, round_: int) -> float:
        """Return the score threshold of a round, counted from 1."""
        return self.score_thresholds[min(round_, len(self.score_thresholds)) - 1]


class Recipe(Section):
    """The parts of a published system."""

    method: Name
    """The method of making pseudo-masks: votecut, maskcut or agglomerative."""
    detector_config: Name
    """The detectron2 yaml of the first detector (cuvler/detector/configs)."""
    self_training: SelfTraining


CUVLER = Recipe(
    method="votecut",
    detector_config="votecut_cad",
    self_training=SelfTraining(
        detector_config="cad_self_train",
        rounds=1,
        dataset="coco_train",
        detections_per_image=100,
        score_thresholds=(0.2,),
        keep_previous=False,
    ),
)
CUTLER = Recipe(
    method="maskcut",
    detector_config="cutler_cascade",
    self_training=SelfTraining(
        detector_config="cutler_self_train",
        rounds=3,
        dataset="",
        detections_per_image=30,
        score_thresholds=(0.7, 0.65),
        keep_previous=True,
    ),
)
