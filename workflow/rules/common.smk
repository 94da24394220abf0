import json
import re
from functools import cache
from pathlib import Path

import yaml

from snakemake.exceptions import WorkflowError

from cuvler import config as settings
from cuvler.download.published import published_files
from cuvler.errors import ConfigError

try:
    settings.check_config(config, workflow.source_path("../schemas/config.schema.yaml"))
except ConfigError as error:
    raise WorkflowError(error)


METHODS = list(
    dict.fromkeys(config["recipes"][recipe]["method"] for recipe in settings.recipes(config))
)
DETECTORS = [
    f"{recipe}_round{round}"
    for recipe in settings.recipes(config)
    for round in range(config["recipes"][recipe]["self_training"]["rounds"] + 1)
]

# Every recipe's last detector learns classes, from each share of the labels.
PERCENTS = config["fine_tuning"]["percents"]
FINE_TUNED = [
    f"{recipe}_round{config['recipes'][recipe]['self_training']['rounds']}_{percent}percent"
    for recipe in settings.recipes(config)
    for percent in PERCENTS
]
METRICS = [
    *(f"<results>/{name}_metrics.json" for name in config["evaluate"]),
    *(f"<results>/fine_tuning/{name}_metrics.json" for name in config["fine_tuning"]["evaluate"]),
]


def require_known(section, name, known):
    """Refuse a name, mistyped in a target, that the config does not have."""
    if name not in known:
        raise WorkflowError(f"{section}.{name}: not in the config; known: {', '.join(known)}")


@cache
def dataset(name):
    require_known("datasets", name, config["datasets"])
    return settings.dataset(config, name)


def images_of(wildcards):
    return dataset(wildcards.dataset).images


def listed_annotations(wildcards):
    """The annotations that list a dataset's images: made by a rule, or an input once they are there.

    While the user's own are not there, the plan can be made all the same, and ``cuvler images``
    says what is missing.
    """
    found = dataset(wildcards.dataset)
    if found.ground_truth:
        return f"<results>/ground_truth/{found.name}.json"
    return [found.annotations] if found.annotations and found.annotations.exists() else []


def scored_annotations(wildcards):
    """The annotations that something is scored against: there must be some."""
    found = dataset(wildcards.dataset)
    if found.annotations is None:
        raise WorkflowError(f"datasets.{found.name}.annotations: needed to score against, not set")
    return listed_annotations(wildcards)


def ground_truth_of(wildcards):
    made = dataset(wildcards.dataset).ground_truth
    if made is None:
        raise WorkflowError(f"datasets.{wildcards.dataset}: its annotations are used as they are")
    return made


def official_annotations(wildcards):
    """What ground truth is made of, as far as it is there: see :func:`listed_annotations`."""
    return [path for path in ground_truth_of(wildcards).files if path.exists()]


def ground_truth_options(wildcards):
    made = ground_truth_of(wildcards)
    files = [
        *(("--annotations", path) for path in made.annotations),
        *(("--image-list", path) for path in made.image_lists),
        *(("--extra-annotations", path) for path in made.extra_annotations),
    ]
    masks = "--masks" if dataset(wildcards.dataset).masks else "--boxes-only"
    pairs = [("--format", made.format), ("--ids", made.ids), *files]
    return [masks, *(word for pair in pairs for word in pair)]


def limit_of(attribute, option):
    """An option that limits the detections of an image where the dataset's entry says so."""

    def options(wildcards):
        limit = getattr(dataset(wildcards.dataset), attribute)
        return [option, limit] if limit else []

    return options


def labels_of(wildcards):
    """A dataset's own annotations, with its classes; what is made of others has none."""
    found = dataset(wildcards.dataset)
    if found.annotations is None or found.ground_truth:
        raise WorkflowError(
            f"datasets.{found.name}.annotations: one COCO json is needed to learn classes from"
        )
    return found.annotations


def download_source(wildcards):
    """Where a file comes from: the config's address and digest, or its published name."""
    own = config["download"].get(wildcards.file)
    if own is None:
        return [wildcards.file]
    return [own["url"], *(["--sha256", own["sha256"]] if "sha256" in own else [])]


def weights_of(wildcards):
    """The weights of a ViT: the user's own file, or one fetched once; pixels need none."""
    if wildcards.backbone.startswith("pixels_"):
        return []
    fetched = f"<resources>/weights/{wildcards.backbone}.safetensors"
    return config["eigenvectors"]["weights"].get(wildcards.backbone, fetched)


def definitions_of_backbones(wildcards):
    # A function: Snakemake looks for wildcards in other parameters, and JSON is full of braces.
    return json.dumps(config["eigenvectors"]["definitions"])


def number_of_cuts(wildcards):
    """MaskCut cuts an image again and again, and needs an eigenvector for each cut."""
    if wildcards.method != "maskcut":
        return []
    return ["--cuts", config["pseudo_masks"]["maskcut"]["n"]]


def eigenvectors_of(wildcards):
    require_known("pseudo_masks", wildcards.method, ("votecut", "maskcut"))
    folder = f"<results>/eigenvectors/{wildcards.dataset}/{wildcards.method}"
    return [
        f"{folder}/{backbone}/{wildcards.shard}.zarr.zip"
        for backbone in settings.backbones(config, wildcards.method)
    ]


def method_options(wildcards):
    """The options of ``cuvler pseudo-masks`` that the method has of its own."""
    if wildcards.method == "maskcut":
        return []
    options = config["pseudo_masks"]["votecut"]
    return [*(word for k in options["ks"] for word in ("--ks", k)), "--tau-m", options["tau_m"]]


def pseudo_masks_of(wildcards):
    return [
        f"<results>/pseudo_masks/{wildcards.dataset}/{wildcards.method}/{shard}.json"
        for shard in range(dataset(wildcards.dataset).shards)
    ]


def folder_of_shards(wildcards, input):
    return Path(input.shards[0]).parent


def recipe_of(wildcards):
    require_known("recipes", wildcards.recipe, config["recipes"])
    return config["recipes"][wildcards.recipe]


def self_training_of(wildcards):
    return recipe_of(wildcards)["self_training"]


def training_dataset(wildcards):
    if int(wildcards.round) == 0:
        return dataset(config["train"])
    return dataset(settings.self_training_dataset(config, wildcards.recipe))


def annotations_of_round(wildcards, round):
    """Round 0 learns from pseudo-masks, every other round from predictions."""
    if round == 0:
        method = recipe_of(wildcards)["method"]
        return f"<results>/annotations/{config['train']}/{method}.json"
    return f"<results>/self_training/{wildcards.recipe}_round{round}.json"


def training_annotations(wildcards):
    return annotations_of_round(wildcards, int(wildcards.round))


def initial_weights(wildcards):
    """Round 0 starts from the configured weights, every other round from the one before."""
    if int(wildcards.round) > 0:
        return f"<results>/detectors/{previous(wildcards)}/model_final.pth"
    weights = config["detector"]["weights"]
    if weights == "dino_resnet50":
        return "<resources>/weights/dino_resnet50.safetensors"
    return weights or []


def previous(wildcards):
    return f"{wildcards.recipe}_round{int(wildcards.round) - 1}"


def training_recipe(wildcards):
    first = int(wildcards.round) == 0
    return (recipe_of(wildcards) if first else self_training_of(wildcards))["detector"]


def self_training_images(wildcards):
    return f"<results>/images/{settings.self_training_dataset(config, wildcards.recipe)}.parquet"


def self_training_predictions(wildcards):
    target = settings.self_training_dataset(config, wildcards.recipe)
    return f"<results>/predictions/{previous(wildcards)}/{target}.json"


def self_training_threshold(wildcards):
    thresholds = self_training_of(wildcards)["thresholds"]
    return thresholds[min(int(wildcards.round), len(thresholds)) - 1]


def former_annotations(wildcards):
    """What the round before learned from, where its annotations are kept."""
    if not self_training_of(wildcards)["keep_former"]:
        return []
    return annotations_of_round(wildcards, int(wildcards.round) - 1)


def scored_results(wildcards):
    """What an entry of a dataset's metrics scores: a method's pseudo-masks or predictions."""
    if wildcards.entry in METHODS:
        return f"<results>/annotations/{wildcards.dataset}/{wildcards.entry}.json"
    return f"<results>/predictions/{wildcards.entry}/{wildcards.dataset}.json"


def scored_entries(name):
    """The rows of a dataset's metrics: pseudo-masks first, then the detectors."""
    scored = name in config["evaluation"]["pseudo_masks"]
    return [*(METHODS if scored else []), *DETECTORS]


def evaluations_of(wildcards):
    return [
        f"<results>/evaluation/{wildcards.dataset}/{entry}.json"
        for entry in scored_entries(wildcards.dataset)
    ]
