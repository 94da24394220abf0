"""Checks of a config that one setting alone cannot have: names must exist, parts must fit."""

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cuvler.config.detector_opts import opts_mistakes
from cuvler.config.model import Settings
from cuvler.eigenvectors.backbones import BACKBONES, definition_mistakes, near_and_known
from cuvler.errors import ConfigError
from cuvler.pseudo_masks.methods import BACKBONE_FIELDS, find_method, method_names

# The files are looked up, not imported: detectron2 may not be installed.
_DETECTOR_CONFIGS = Path(__file__).parents[1] / "detector" / "configs"


def mistakes(settings: Settings) -> list[str]:
    """List names that do not exist and, if all do, parts that do not fit together."""
    return [
        *_unknown_datasets(settings),
        *_unknown_recipes(settings),
        *_unknown_detector_configs(settings),
        *_definition_mistakes(settings),
        *_method_mistakes(settings),
        *opts_mistakes("detector.opts", settings.detector.opts),
        *opts_mistakes("fine_tuning.opts", settings.fine_tuning.opts),
    ] or [
        *_missing_ground_truth(settings),
        *_other_previous(settings),
        *_batches_not_divisible(settings),
    ]


def _unknown(key: str, name: str, known: Collection[str]) -> Iterator[str]:
    if name in known:
        return
    yield f"{key}: {name!r} is not known; {near_and_known(name, sorted(known))}"


def _unknown_datasets(settings: Settings) -> Iterator[str]:
    rounds = {name: settings.recipes[name] for name in _known_recipes(settings)}
    used = [
        ("train", settings.train),
        *(("evaluate", name) for name in settings.evaluate),
        *(
            (f"recipes.{name}.self_training.dataset", recipe.self_training.dataset)
            for name, recipe in rounds.items()
        ),
        ("detector.validation", settings.detector.validation),
        ("fine_tuning.dataset", settings.fine_tuning.dataset),
        ("fine_tuning.validation", settings.fine_tuning.validation),
        *(("fine_tuning.evaluate", name) for name in settings.fine_tuning.evaluate),
        *(("evaluation.pseudo_masks", name) for name in settings.evaluation.pseudo_masks),
    ]
    for key, name in used:
        if name:  # Some may be empty.
            yield from _unknown(key, name, settings.datasets)


def _known_recipes(settings: Settings) -> list[str]:
    return [name for name in settings.recipe_names if name in settings.recipes]


def _unknown_recipes(settings: Settings) -> Iterator[str]:
    for name in settings.recipe_names:
        yield from _unknown("recipe", name, settings.recipes)
    for name, recipe in settings.recipes.items():
        yield from _unknown(f"recipes.{name}.method", recipe.method, method_names())


def _unknown_detector_configs(settings: Settings) -> Iterator[str]:
    used = [
        *(
            ("fine_tuning.detector_config", settings.fine_tuning_detector_config(percent))
            for percent in settings.fine_tuning.percents
        ),
        *(
            (f"recipes.{name}.{key}detector_config", section.detector_config)
            for name, recipe in settings.recipes.items()
            for key, section in (("", recipe), ("self_training.", recipe.self_training))
        ),
    ]
    known = [path.stem for path in _DETECTOR_CONFIGS.glob("[!_]*.yaml")]
    for key, name in used:
        yield from _unknown(key, name, known)


def _definition_mistakes(settings: Settings) -> Iterator[str]:
    definitions = settings.eigenvectors.definitions
    for name in definitions:
        for wrong in definition_mistakes(name, definitions):
            yield f"eigenvectors.definitions.{name}: {wrong}"


def _method_mistakes(settings: Settings) -> Iterator[str]:
    known = {*BACKBONES, *settings.eigenvectors.definitions}
    for name in method_names():
        try:
            method = settings.pseudo_masks.method(name)
        except ConfigError as error:
            yield str(error)
            continue
        for key in BACKBONE_FIELDS:
            if key in find_method(name).model_fields:
                for backbone in method.needs():
                    yield from _unknown(f"pseudo_masks.{name}.{key}", backbone, known)


def _missing_ground_truth(settings: Settings) -> Iterator[str]:
    scored = dict.fromkeys(
        [
            *settings.evaluate,
            *settings.evaluation.pseudo_masks,
            *settings.fine_tuning.evaluate,
            *filter(None, [settings.detector.validation, settings.fine_tuning.validation]),
        ]
    )
    for name in scored:
        if settings.dataset(name).ground_truth is None:
            yield f"datasets.{name}.ground_truth: needed to score against, but not set"


def _other_previous(settings: Settings) -> Iterator[str]:
    """Find recipes that keep previous annotations which are of another dataset."""
    for name in settings.recipe_names:
        keeps = settings.recipes[name].self_training.keep_previous
        if keeps and settings.self_training_dataset(name) != settings.train:
            yield (
                f"recipes.{name}.self_training: keep_previous needs the annotations of the "
                f"previous round, which are of {settings.train!r}; leave dataset empty or set "
                "keep_previous to false"
            )


def _batches_not_divisible(settings: Settings) -> Iterator[str]:
    """Find detector configs with a batch that cannot be divided among all processes.

    :func:`cuvler.detector.config.load_detector_config` refuses them too, but only in the job.
    """
    nodes, num_gpus = settings.detector.nodes, settings.detector.num_gpus
    processes = nodes * max(num_gpus, 1)
    for key, opts, config in _trained(settings):
        given = str(dict(zip(opts[::2], opts[1::2], strict=True)).get("SOLVER.IMS_PER_BATCH"))
        batch = int(given) if given.isdecimal() else _batch_size(config)
        if batch % processes:
            yield (
                f"detector.nodes: {nodes}, with detector.num_gpus {num_gpus}: {config} has batches "
                f"of {batch} images, which {processes} processes cannot share; set "
                f"SOLVER.IMS_PER_BATCH in {key}.opts to a multiple of {processes}, or change nodes "
                "or num_gpus"
            )


def _trained(settings: Settings) -> Iterator[tuple[str, Sequence[object], str]]:
    """Yield the detector configs that the target `all` trains, with section and overrides."""
    for name in settings.recipe_names:
        recipe = settings.recipes[name]
        if settings.first_round(name) == 0:
            yield "detector", settings.detector.opts, recipe.detector_config
        if recipe.self_training.rounds:
            yield "detector", settings.detector.opts, recipe.self_training.detector_config
    if settings.fine_tuning.evaluate:
        for percent in settings.fine_tuning.percents:
            config = settings.fine_tuning_detector_config(percent)
            yield "fine_tuning", settings.fine_tuning.opts, config


@cache
def _batch_size(config: str) -> int:
    """Return the batch size of one of the package's detector configs, without detectron2."""
    text = (_DETECTOR_CONFIGS / f"{config}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    own: int | None = content.get("SOLVER", {}).get("IMS_PER_BATCH")
    return own if own is not None else _batch_size(content["_BASE_"].removesuffix(".yaml"))
