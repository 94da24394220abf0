import json
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import yaml

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from cuvler import layout, listing, slurm
from cuvler.commands.method_options import method_arguments
from cuvler.config import check
from cuvler.download.published import published_files
from cuvler.eigenvectors.backbones import is_pixel_backbone
from cuvler.errors import CuvlerError
from cuvler.layout import DetectorName
from cuvler.pseudo_masks.methods import method_names

try:
    # `config` stays a dictionary for Snakemake; rules use its checked form.
    settings = check(config)
    # The number of GPUs of each rule's jobs, and the total on this machine unless given by
    # `--resources gpus=N`. The Snakemake process inside a job needs no total.
    GPUS = settings.gpus_by_rule()
    if workflow.is_main_process and "gpus" not in workflow.global_resources:
        workflow.global_resources["gpus"] = settings.local_gpus()
except CuvlerError as error:
    raise WorkflowError(error)


METHODS = list(dict.fromkeys(settings.recipes[recipe].method for recipe in settings.recipe_names))
DETECTORS = [
    DetectorName(recipe, round)
    for recipe in settings.recipe_names
    for round in range(
        settings.first_round(recipe), settings.recipes[recipe].self_training.rounds + 1
    )
]

# Each recipe's last detector is fine-tuned on each percentage of the labels.
PERCENTS = settings.fine_tuning.percents
FINE_TUNED = [
    DetectorName(recipe, settings.recipes[recipe].self_training.rounds, percent)
    for recipe in settings.recipe_names
    for percent in PERCENTS
]
# Datasets that are scored: detectors on those of `evaluate`, pseudo-masks on the others.
SCORED = list(dict.fromkeys([*settings.evaluate, *settings.evaluation.pseudo_masks]))
METRICS = [
    *(layout.METRICS.of(dataset=name) for name in SCORED),
    *(layout.FINE_TUNING_METRICS.of(dataset=name) for name in settings.fine_tuning.evaluate),
]

MODEL_CARDS = [
    *(layout.MODEL_CARD.of(detector=name) for name in DETECTORS if settings.evaluate),
    *(
        layout.FINE_TUNING_MODEL_CARD.of(fine_tuned=name)
        for name in FINE_TUNED
        if settings.fine_tuning.evaluate
    ),
]


def check_container():
    """Raise an error if jobs are to run in a container and cannot."""
    if DeploymentMethod.APPTAINER not in workflow.deployment_settings.deployment_method:
        return
    image = settings.container
    if "://" not in image and not Path(image).exists():
        raise WorkflowError(
            f"container: {image}: no such file; build it, on a machine with a network: "
            "apptainer build cuvler.sif container/cuvler.def"
        )
    if settings.detector.nodes > 1:
        raise WorkflowError(
            f"detector.nodes: {settings.detector.nodes}: srun, which starts a training on several "
            "nodes, is not in the container; train on one, or without the container"
        )


check_container()

# Options of the commands that open images.
ALLOW_OUTSIDE = ["--allow-outside"] if settings.images.allow_outside else []
IMAGE_ACCESS = ["--max-pixels", settings.images.max_pixels, *ALLOW_OUTSIDE]


def require_known(section, name, known):
    """Raise an error if a target has a name that is not in the config."""
    if name not in known:
        raise WorkflowError(f"{section}.{name}: not in the config; known: {', '.join(known)}")


def require_one_node(jobs):
    """Raise an error for a job on several nodes, which only SLURM can start."""
    for job in jobs:
        if nodes := job.resources.get("nodes"):
            raise WorkflowError(
                f"detector.nodes: {nodes}, but only SLURM starts {job.rule.name} on several nodes; "
                "run Snakemake with --profile profiles/slurm, or set it to 1"
            )


def gpu_job_threads(rule):
    """Return the threads of a GPU job: 16, or less to give all GPUs an equal share of the cores."""

    def threads(wildcards):
        here = workflow.global_resources.get("gpus")
        if here is None or not here.value or not GPUS[rule]:
            return 16
        return max(1, min(16, workflow.cores * GPUS[rule] // here.value))

    return threads


@cache
def dataset(name):
    require_known("datasets", name, settings.datasets)
    return settings.dataset(name)


def images_of(wildcards):
    return dataset(wildcards.dataset).images


def listed_ground_truth(wildcards):
    """The ground truth that lists a dataset's images: made by a rule, or the user's file if present.

    A missing file is not an input, so that Snakemake can plan without data; ``cuvler images``
    then reports it.
    """
    found = dataset(wildcards.dataset)
    if found.made_from:
        return layout.GROUND_TRUTH.of(dataset=found.name)
    return [found.ground_truth] if found.ground_truth and found.ground_truth.exists() else []


@cache
def listed_state(name):
    """The state of a dataset's folder of images; cached, because a job deletes the listing first."""
    found = dataset(name)
    if found.ground_truth:
        return listing.INITIAL_STATE
    try:
        path = layout.LISTING.under(settings.results, dataset=name)
        return listing.listed_state(path, found.images)
    except CuvlerError as error:
        raise WorkflowError(f"datasets.{name}.images: {error}")


def scored_ground_truth(wildcards):
    """The ground truth for an evaluation; raise an error if the dataset has none."""
    found = dataset(wildcards.dataset)
    if found.ground_truth is None:
        raise WorkflowError(f"datasets.{found.name}.ground_truth: needed to score against, not set")
    return listed_ground_truth(wildcards)


def validation_ground_truth(section):
    """An input function: ground truth and listing of the section's validation dataset, if set.

    The listing depends on no other job, so that missing ground truth fails at once and not when
    training starts.
    """
    name = getattr(settings, section).validation

    def inputs(_):
        if not name:
            return []
        truth = scored_ground_truth(SimpleNamespace(dataset=name))
        return [layout.LISTING.of(dataset=name), *([truth] if isinstance(truth, str) else truth)]

    return inputs


def validation_options(section):
    """A parameter function: the validation dataset. Fine-tuning needs ground truth with classes."""
    name = getattr(settings, section).validation

    def options(_):
        if not name:
            return []
        found = dataset(name)
        if section == "fine_tuning":
            return ["--evaluate", str(labels_of(SimpleNamespace(dataset=name))), str(found.images)]
        return ["--evaluate", str(found.ground_truth), str(found.images)]

    return options


def ground_truth_of(wildcards):
    made = dataset(wildcards.dataset).made_from
    if made is None:
        raise WorkflowError(f"datasets.{wildcards.dataset}: its ground truth is used unchanged")
    return made


def official_annotations(wildcards):
    """The official files that exist; missing ones are handled as in :func:`listed_ground_truth`."""
    return [path for path in ground_truth_of(wildcards).files if path.exists()]


def ground_truth_options(wildcards):
    made = ground_truth_of(wildcards)
    files = [
        *(("--annotations", path) for path in made.official),
        *(("--image-list", path) for path in made.image_lists),
        *(("--extra-annotations", path) for path in made.extra),
    ]
    masks = "--masks" if dataset(wildcards.dataset).masks else "--boxes-only"
    pairs = [("--format", made.format), ("--ids", made.ids), *files]
    return [masks, *(word for pair in pairs for word in pair)]


def limit_of(attribute, option):
    """A parameter function: the limit of detections per image, if the dataset sets one."""

    def options(wildcards):
        limit = getattr(dataset(wildcards.dataset), attribute)
        return [option, limit] if limit else []

    return options


def labels_of(wildcards):
    """A dataset's own ground truth, which has classes; ground truth made by a rule has none."""
    found = dataset(wildcards.dataset)
    if found.ground_truth is None or found.made_from:
        raise WorkflowError(
            f"datasets.{found.name}.ground_truth: fine-tuning needs one COCO json with classes"
        )
    return found.ground_truth


def download_source(wildcards):
    """The source of a download: URL and digest from the config, or its published name."""
    own = settings.download.get(wildcards.file)
    if own is None:
        return [wildcards.file]
    return [own.url, *(["--sha256", own.sha256] if own.sha256 else [])]


def weights_of(wildcards):
    """The weights of a ViT: the user's file, or a fetched one; pixel backbones have none."""
    if is_pixel_backbone(wildcards.backbone):
        return []
    fetched = layout.WEIGHTS.of(backbone=wildcards.backbone)
    return settings.eigenvectors.weights.get(wildcards.backbone, fetched)


def definition_of_backbone(wildcards):
    """The backbone's own settings, without the graph's, which are options of their own."""
    # A function, because Snakemake would take the braces of JSON in a plain string for wildcards.
    own = settings.eigenvectors.definitions.get(wildcards.backbone)
    stated = own.model_dump(exclude_none=True, exclude={"tau", "eps"}) if own else {}
    return json.dumps({wildcards.backbone: stated} if stated else {})


def model_of_backbone(wildcards):
    """The definition of a backbone that has another model than the table's, for its weights."""
    own = settings.eigenvectors.definitions.get(wildcards.backbone)
    return definition_of_backbone(wildcards) if own and own.timm else json.dumps({})


def graph_option(name):
    """A parameter function: a setting of the backbone's graphs."""
    return lambda wildcards: settings.eigenvectors.graph(wildcards.backbone)[name]


@cache
def configured_method(name):
    require_known("pseudo_masks", name, method_names())
    return settings.pseudo_masks.method(name)


def needed_vectors(wildcards):
    """The options of ``cuvler eigenvectors`` for the vectors that the method needs."""
    needs = configured_method(wildcards.method).needs()
    require_known(f"pseudo_masks.{wildcards.method}", wildcards.backbone, needs)
    need = needs[wildcards.backbone]
    switches = [f"--{name.replace('_', '-')}" for name, is_on in need.options().items() if is_on]
    return ["--problem", need.problem, "--num-eigenvectors", need.k, *switches]


def eigenvectors_of(wildcards):
    return [
        layout.EIGENVECTORS.of(**wildcards, backbone=backbone)
        for backbone in configured_method(wildcards.method).needs()
    ]


def method_options(wildcards):
    """The options of ``cuvler pseudo-masks`` for the method's settings."""
    return method_arguments(configured_method(wildcards.method))


def pseudo_masks_of(wildcards):
    return [
        layout.PSEUDO_MASKS.of(**wildcards, shard=shard)
        for shard in range(dataset(wildcards.dataset).shards)
    ]


def folder_of_shards(wildcards, input):
    return Path(input.shards[0]).parent


def detector_of(wildcards):
    detector = DetectorName.parse(wildcards.detector)
    require_known("recipes", detector.recipe, settings.recipes)
    return detector


def recipe_of(wildcards):
    return settings.recipes[detector_of(wildcards).recipe]


def self_training_of(wildcards):
    return recipe_of(wildcards).self_training


def training_dataset(wildcards):
    detector = detector_of(wildcards)
    if detector.round == 0:
        return dataset(settings.train)
    return dataset(settings.self_training_dataset(detector.recipe))


def annotations_of_detector(detector):
    """Round 0 trains on pseudo-masks, later rounds on the previous detector's predictions."""
    if detector.round == 0:
        method = settings.recipes[detector.recipe].method
        return layout.ANNOTATIONS.of(dataset=settings.train, method=method)
    return layout.SELF_TRAINING.of(detector=detector)


def training_annotations(wildcards):
    return annotations_of_detector(detector_of(wildcards))


def initial_weights(wildcards):
    """The first round starts from the configured weights, others from the previous detector."""
    detector = detector_of(wildcards)
    if detector.round > settings.first_round(detector.recipe):
        return layout.DETECTOR.of(detector=previous(wildcards))
    weights = settings.detector.weights
    return layout.WEIGHTS.of(backbone=weights) if weights == "dino_resnet50" else weights or []


def training_detector_config(wildcards):
    return settings.detector_config(detector_of(wildcards))


def previous(wildcards):
    """The detector of the previous round; its predictions are trained on."""
    detector = detector_of(wildcards)
    if detector.previous is None:
        raise WorkflowError(f"{detector}: round 0 trains on pseudo-masks, not on predictions")
    return detector.previous


def self_training_listing(wildcards):
    return layout.LISTING.of(dataset=training_dataset(wildcards).name)


def self_training_predictions(wildcards):
    """The previous detector's predictions, or in round 1 those of a detector trained elsewhere."""
    target = training_dataset(wildcards)
    if target.predictions and detector_of(wildcards).round == 1:
        return target.predictions
    return layout.PREDICTIONS.of(detector=previous(wildcards), dataset=target.name)


def self_training_score_threshold(wildcards):
    return self_training_of(wildcards).score_threshold(detector_of(wildcards).round)


def previous_annotations(wildcards):
    """The previous round's annotations, if the recipe keeps them."""
    if not self_training_of(wildcards).keep_previous:
        return []
    return annotations_of_detector(previous(wildcards))


def scored_results(wildcards):
    """The results that an entry scores: a method's pseudo-masks or a detector's predictions."""
    if wildcards.entry in METHODS:
        return layout.ANNOTATIONS.of(dataset=wildcards.dataset, method=wildcards.entry)
    try:
        detector = DetectorName.parse(wildcards.entry)
    except ValueError as error:
        raise WorkflowError(f"{error}; pseudo-masks that can be scored: {', '.join(METHODS)}")
    return layout.PREDICTIONS.of(dataset=wildcards.dataset, detector=detector)


def scored_entries(name):
    """The entries of a dataset's metrics: pseudo-masks first, then detectors.

    A dataset on which only pseudo-masks are to be scored needs no training.
    """
    if name not in settings.evaluation.pseudo_masks:
        return DETECTORS
    return [*METHODS, *(DETECTORS if name in settings.evaluate else [])]


def evaluations_of(wildcards):
    return [
        layout.EVALUATION.of(**wildcards, entry=entry)
        for entry in scored_entries(wildcards.dataset)
    ]


def entry_options(entries, paths):
    """The options of ``cuvler metrics``: each entry's name and file of scores."""
    return [word for pair in zip(entries, paths) for word in ("--entry", "=".join(map(str, pair)))]


def metrics_options(names, paths):
    """Options of ``cuvler table`` and ``cuvler model-card``: each dataset's scores and title."""
    return [
        word
        for name, path in zip(names, paths)
        for word in ("--metrics", f"{name}={path}", "--title", f"{name}={dataset(name).title}")
    ]


def fine_tuning_split(wildcards):
    percent = DetectorName.parse(wildcards.fine_tuned).percent
    return layout.SPLIT.of(dataset=settings.fine_tuning.dataset, percent=percent)


def fine_tuning_weights(wildcards):
    return layout.DETECTOR.of(detector=DetectorName.parse(wildcards.fine_tuned).pretrained)


def fine_tuning_detector_config(wildcards):
    return settings.detector_config(DetectorName.parse(wildcards.fine_tuned))
