"""The workflow's settings: checked against the schema, and datasets resolved to paths."""

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuvler.eigenvectors.backbones import BACKBONES
from cuvler.errors import ConfigError
from cuvler.layout import GROUND_TRUTH
from cuvler.pseudo_masks.methods import (
    BACKBONE_FIELDS,
    SHARED_SETTINGS,
    Method,
    find_method,
    make_method,
    method_names,
)

if TYPE_CHECKING:
    from jsonschema import ValidationError

# The files are looked up, not imported: detectron2 may not be installed.
_DETECTOR_CONFIGS = [
    path.stem for path in (Path(__file__).parent / "detector" / "configs").glob("[!_]*.yaml")
]


@dataclass(frozen=True)
class GroundTruth:
    """What a dataset's class-agnostic ground truth is made of (``cuvler.ground_truth``).

    Lists of files or folders; ``format`` is a key of ``cuvler.ground_truth.FORMATS``, ``ids``
    one of ``order`` and ``digits``.
    """

    annotations: list[Path]
    format: str
    image_lists: list[Path]
    extra_annotations: list[Path]
    ids: str

    @property
    def files(self) -> list[Path]:
        """Everything it is made of."""
        return [*self.annotations, *self.image_lists, *self.extra_annotations]


@dataclass(frozen=True)
class Dataset:
    """A dataset as the rules need it: where its images are, and how they are dealt out.

    Attributes:
        name: its key in the config.
        title: its name in tables.
        images: the folder that file names start from.
        annotations: a COCO json, the user's own or the one that is to be made; or None.
        ground_truth: what ``annotations`` is made of, where it is not used as it is.
        ids: where image ids come from: ``order``, ``digits`` or ``annotations``.
        shards: how many jobs it is dealt into.
        masks: whether masks are scored, and not only boxes.
        detections_per_image: how many are predicted; None leaves it to the detector.
        max_detections: how many of them count; None leaves it at COCO's 100.
        source: where to get it; may be empty.
    """

    name: str
    title: str
    images: Path
    annotations: Path | None
    ground_truth: GroundTruth | None
    ids: str
    shards: int
    masks: bool
    detections_per_image: int | None
    max_detections: int | None
    source: str


def check_config(config: Mapping[str, Any], schema: str | os.PathLike[str]) -> None:
    """Check settings against the schema file, and names against each other.

    Raises:
        ConfigError: names the key, the value, and what is allowed; all mistakes at once.
    """
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(config_schema(schema))
    errors = sorted(validator.iter_errors(config), key=lambda error: list(map(str, error.path)))
    mistakes = [_describe(error) for error in errors] or _unknown_names(config)
    if mistakes:
        raise ConfigError("wrong settings:\n" + "\n".join(f"  {line}" for line in mistakes))


def config_schema(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the schema file, and fill in the methods: their names and the section of each."""
    import yaml

    with open(path, encoding="utf-8") as stream:
        schema: dict[str, Any] = yaml.safe_load(stream)
    sections = schema["properties"]["pseudo_masks"]["properties"]
    schema["$defs"]["method"] = {"enum": list(method_names())}
    for name in method_names():
        section = find_method(name).model_json_schema()
        schema["$defs"] |= section.pop("$defs", {})
        for key in SHARED_SETTINGS:
            section["properties"].pop(key, None)
        sections[name] = section
    return schema


def _describe(error: "ValidationError") -> str:
    key = ".".join(map(str, error.absolute_path)) or "the config"
    instance: Any = error.instance
    allowed: Any = error.validator_value
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"]) if isinstance(error.schema, dict) else []
        return "; ".join(
            _unknown_key(key, name, instance[name], known) for name in instance if name not in known
        )
    value = json.dumps(instance, default=str)
    if error.validator == "anyOf" and error.context:
        # Say what is wrong with the form that was meant: the one of the same type.
        here = error.absolute_path
        meant = [e for e in error.context if e.validator != "type" or e.absolute_path != here]
        if meant:
            return "; ".join(_describe(e) for e in meant)
        types = " or ".join(str(e.validator_value) for e in error.context)
        return f"{key}: {value} is not allowed; allowed: {types}"
    if (error.validator, allowed) == ("type", "array"):
        return f"{key}: {value} is not a list; write it in brackets: {key}=[{instance}]"
    if error.validator == "enum":
        return f"{key}: {value} is not allowed; allowed: {', '.join(allowed)}"
    if error.validator == "pattern":
        described = isinstance(error.schema, dict) and error.schema.get("description")
        return f"{key}: {value} is not {described or 'a name; use letters, digits, _ and -'}"
    return f"{key}: {error.message}"


def _unknown_key(parent: str, name: str, value: object, known: list[str]) -> str:
    key = name if parent == "the config" else f"{parent}.{name}"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{key}: unknown key (value {value!r}); {hint}known: {', '.join(known)}"


def _unknown_names(config: Mapping[str, Any]) -> list[str]:
    datasets, fine_tuning = config["datasets"], config["fine_tuning"]
    known_backbones = {**BACKBONES, **config["eigenvectors"]["definitions"]}
    used = [
        ("train", config["train"], datasets),
        *(
            (f"recipes.{name}.self_training.dataset", recipe["self_training"]["dataset"], datasets)
            for name, recipe in config["recipes"].items()
            if name in recipes(config) and recipe["self_training"]["dataset"]
        ),
        *(("evaluate", name, datasets) for name in config["evaluate"]),
        ("fine_tuning.dataset", fine_tuning["dataset"], datasets),
        *(
            (f"{section}.validation", config[section]["validation"], datasets)
            for section in ("detector", "fine_tuning")
            if config[section]["validation"]
        ),
        *(("fine_tuning.evaluate", name, datasets) for name in fine_tuning["evaluate"]),
        *(
            ("fine_tuning.detector", fine_tuning_detector(config, percent), _DETECTOR_CONFIGS)
            for percent in fine_tuning["percents"]
        ),
        *(("evaluation.pseudo_masks", name, datasets) for name in _scored(config)),
        *(
            (f"pseudo_masks.{name}.{key}", backbone, known_backbones)
            for name in method_names()
            for key in BACKBONE_FIELDS
            if key in find_method(name).model_fields
            for backbone in configured_method(config, name).needs()
        ),
        *(("recipe", name, config["recipes"]) for name in recipes(config)),
        *(
            (f"recipes.{name}.{key}detector", section["detector"], _DETECTOR_CONFIGS)
            for name, recipe in config["recipes"].items()
            for key, section in (("", recipe), ("self_training.", recipe["self_training"]))
        ),
    ]
    mistakes = [
        f"{key}: {name!r} is not known; known: {_listed(known)}"
        for key, name, known in used
        if name not in known
    ]
    if not mistakes:
        mistakes = [
            f"datasets.{name}.annotations: needed to score against, but not set"
            for name in dict.fromkeys(
                [
                    *config["evaluate"],
                    *_scored(config),
                    *fine_tuning["evaluate"],
                    *filter(None, [config["detector"]["validation"], fine_tuning["validation"]]),
                ]
            )
            if dataset(config, name).annotations is None
        ]
        mistakes += [
            f"recipes.{name}.self_training: keep_former needs the annotations of a former round, "
            f"which are of {config['train']!r}; leave dataset empty or set keep_former to false"
            for name in recipes(config)
            if config["recipes"][name]["self_training"]["keep_former"]
            and self_training_dataset(config, name) != config["train"]
        ]
    return mistakes


def _scored(config: Mapping[str, Any]) -> list[str]:
    return list(config["evaluation"]["pseudo_masks"])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def recipes(config: Mapping[str, Any]) -> list[str]:
    """The names of the recipes to run, in order."""
    recipe = config["recipe"]
    return [recipe] if isinstance(recipe, str) else list(recipe)


def configured_method(config: Mapping[str, Any], name: str) -> Method:
    """Make a method with the settings of its section, and those that methods share.

    Raises:
        ConfigError: there is no such method, or a setting is wrong; the message names it.
    """
    section = config["pseudo_masks"]
    known = find_method(name).model_fields
    shared = {key: section[key] for key in SHARED_SETTINGS if key in known}
    return make_method(name, {**shared, **section.get(name, {})}, where=f"pseudo_masks.{name}")


def self_training_dataset(config: Mapping[str, Any], recipe: str) -> str:
    """The name of the dataset that a recipe's self-training rounds learn from."""
    return str(config["recipes"][recipe]["self_training"]["dataset"] or config["train"])


def gpus_by_rule(config: Mapping[str, Any]) -> dict[str, int]:
    """How many GPUs a job of each rule holds; rules that are left out need none."""
    training, inference = (int(config[name]["num_gpus"]) for name in ("detector", "predictions"))
    return {
        "eigenvectors": 0 if config["eigenvectors"]["device"] == "cpu" else 1,
        "detector": training,
        "predictions": inference,
        "fine_tuning": training,
        "fine_tuning_predictions": inference,
        "reproduction_predictions": inference,
    }


def local_gpus(config: Mapping[str, Any]) -> int:
    """How many GPUs the jobs on this machine may hold together."""
    from cuvler.gpus import visible_gpus

    return len(visible_gpus()) if config["gpus"] == "auto" else int(config["gpus"])


def fine_tuning_detector(config: Mapping[str, Any], percent: int) -> str:
    """The name of the detectron2 config that learns from a percentage of the labels."""
    return str(config["fine_tuning"]["detector"]).replace("PERCENT", str(percent))


def dataset(config: Mapping[str, Any], name: str) -> Dataset:
    """Resolve a dataset's entry: short or long form, paths against ``datasets_root``."""
    entry = config["datasets"][name]
    if isinstance(entry, str):
        is_json = entry.lower().endswith(".json")
        entry = (
            {"images": str(Path(entry).parent), "annotations": entry}
            if is_json
            else {"images": entry}
        )
    root = _expand(config["datasets_root"])
    annotations, ids = entry.get("annotations"), "annotations"
    made = _ground_truth(entry, root)
    if made:
        annotations = GROUND_TRUTH.under(config["results"], dataset=name)
    else:
        ids = entry.get("ids", "annotations" if annotations else "order")
        annotations = root / _expand(annotations) if annotations else None
    return Dataset(
        name=name,
        title=entry.get("title", name),
        images=root / _expand(entry["images"]),
        annotations=annotations,
        ground_truth=made,
        ids=ids,
        shards=entry.get("shards", config["images"]["shards"]),
        masks=entry.get("masks", True),
        # What is to count must have been predicted.
        detections_per_image=entry.get("detections_per_image", entry.get("max_detections")),
        max_detections=entry.get("max_detections"),
        source=entry.get("source", ""),
    )


def _ground_truth(entry: Mapping[str, Any], root: Path) -> GroundTruth | None:
    """Say what ground truth is made of; None for a COCO json that is used as it is."""
    several = isinstance(entry.get("annotations"), list)
    if not several and not entry.keys() & {"format", "image_lists", "extra_annotations"}:
        return None
    annotations = entry["annotations"] if several else [entry["annotations"]]
    lists = [annotations, entry.get("image_lists", []), entry.get("extra_annotations", [])]
    files, image_lists, extra = ([root / _expand(path) for path in paths] for paths in lists)
    ids = "digits" if entry.get("ids") == "digits" else "order"
    return GroundTruth(files, entry.get("format", "coco"), image_lists, extra, ids)


def _expand(path: str) -> Path:
    """A path with ``~`` and environment variables (``$DETECTRON2_DATASETS``) filled in."""
    return Path(os.path.expandvars(path)).expanduser()
