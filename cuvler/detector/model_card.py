"""The model card of a trained detector: ``README.md`` in its folder, in the hub's format.

The training states in ``training.json`` what it was made from; the card is written from that, from
``config.yaml`` and from the scores that are known, and can be written again when there are more.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from cuvler import __version__
from cuvler.coco import Needs, Section, read_coco
from cuvler.detector.checkpoints import MODEL, SAFE_MODEL
from cuvler.detector.config import base_config, merge_file
from cuvler.detector.training_file import Records
from cuvler.eigenvectors.backbones import BACKBONES
from cuvler.eigenvectors.weights import license_of
from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path, read_json, write_json
from cuvler.markdown import escape, grid

CARD = "README.md"
TRAINING = "training.json"

# Dataset -> scores of boxes and masks ("bbox", "segm") -> metric -> percent.
Scores = Mapping[str, Mapping[str, Any]]
_KINDS = {"bbox": "box", "segm": "mask"}
_METRICS = ("AP", "AP50", "AR100")
# What the card needs of ``training.json``.
_TRAINING = {
    "annotations": str,
    "made_with": dict,
    "num_images": int,
    "num_instances": int,
    "weights": str | None,
}
_KEYS = {
    "MODEL.BACKBONE.NAME": "backbone, as detectron2 names it",
    "SOLVER.MAX_ITER": "iterations",
    "SOLVER.IMS_PER_BATCH": "images per batch",
    "SOLVER.BASE_LR": "learning rate",
    "MODEL.ROI_HEADS.SOFT_TARGETS": "soft targets",
    "MODEL.ROI_HEADS.DROP_LOSS": "DropLoss",
    "INPUT.COPY_PASTE.ENABLED": "copy-paste",
}


def record_training(folder: StrPath, annotations: StrPath, records: Records, weights: str) -> None:
    """Write what a training starts from; paths are stored by their last two names.

    Args:
        folder: the detector's folder.
        annotations: the COCO json.
        records: its images that are trained on.
        weights: path of the initial weights; empty for random ones.
    """
    write_json(
        Path(folder, TRAINING),
        {
            "annotations": short_path(annotations),
            "made_with": _info(annotations),
            "num_images": len(records),
            "num_instances": records.num_instances,
            "weights": short_path(weights) if weights else None,
            "versions": {"cuvler": __version__, "torch": version("torch")},
        },
    )


def short_path(path: StrPath) -> str:
    """Return the last two names of a path, which say nothing of the machine."""
    return "/".join(Path(path).parts[-2:]).lstrip("/")


def _info(annotations: StrPath) -> dict[str, Any]:
    """Return what a json's ``info`` says: for pseudo-masks the settings they were made with."""
    needs = Needs(sections=())
    for record in read_coco(annotations, needs, quiet=True):
        if isinstance(record, Section) and record.name == "info":
            return dict(record.content) if isinstance(record.content, dict) else {}
        break
    return {}


def write_card(folder: StrPath, scores: Scores, titles: Mapping[str, str] | None = None) -> Path:
    """Write the card of a detector that ``cuvler detector`` has trained.

    Args:
        folder: the detector's folder.
        scores: what is known of the trained detector.
        titles: datasets' titles; default: their names.

    Returns:
        The path of the card.

    Raises:
        DataError: the folder has no config, or no record of the training.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise DataError(f"{folder / 'config.yaml'}: no such file; `cuvler detector` writes it")
    training = read_json(folder / TRAINING)
    if not isinstance(training, dict) or not all(
        key in training and isinstance(training[key], type_) for key, type_ in _TRAINING.items()
    ):
        raise DataError(f"{folder / TRAINING}: not what `cuvler detector` writes; train again")
    cfg = base_config()
    merge_file(cfg, folder / "config.yaml")
    titles = {name: (titles or {}).get(name, name) for name in scores}
    name = folder.resolve().name
    text = "\n".join(
        (
            _front_matter(name, scores, titles),
            *_body(name, cfg),
            *_training_section(training, cfg),
            *_scores_section(scores, titles),
            *_use_section(),
            *_licence_section(training),
        )
    )
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return folder / CARD


def _front_matter(name: str, scores: Scores, titles: Mapping[str, str]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-segmentation" if kind == "segm" else "object-detection",
            dataset_type=dataset,
            dataset_name=titles[dataset],
            metric_type=metric,
            metric_name=f"{_KINDS[kind]} {metric}",
            metric_value=round(value, 2),
        )
        for dataset, kinds in scores.items()
        for kind in _KINDS
        for metric in _METRICS
        if (value := kinds.get(kind, {}).get(metric)) is not None
    ]
    data = ModelCardData(
        library_name="detectron2",
        pipeline_tag="image-segmentation",
        tags=["object-detection", "instance-segmentation", "unsupervised", "cuvler"],
        model_name=name,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _body(name: str, cfg: CfgNode) -> list[str]:
    names = cfg.DATASETS.CATEGORY_NAMES
    found = "objects of any kind; it has one class"
    if not cfg.DATASETS.CLASS_AGNOSTIC:
        first = ", ".join(escape(one) for one in names[:5])
        found = f"objects of {len(names)} classes ({first}{', ...' if len(names) > 5 else ''})"
    kind = "Cascade Mask R-CNN" if "Cascade" in cfg.MODEL.ROI_HEADS.NAME else "Mask R-CNN"
    return [
        f"# {escape(name)}",
        "",
        f"A {kind}, trained with cuvler {__version__}: it finds and segments {found}.",
        "",
    ]


def _training_section(training: Mapping[str, Any], cfg: CfgNode) -> list[str]:
    made_with = training["made_with"]
    rows = [
        ["annotations", escape(training["annotations"])],
        ["images", f"{training['num_images']:,}"],
        ["masks", f"{training['num_instances']:,}"],
        ["initial weights", escape(training["weights"] or "random")],
        *([what, str(_value(cfg, key))] for key, what in _KEYS.items()),
    ]
    table = grid(["", ""], rows)
    lines = ["## Training", "", table, "", "`config.yaml` has all settings."]
    if made_with:
        text = json.dumps(made_with, indent=2, ensure_ascii=False)
        lines += ["The annotations' file says of itself:", "", _indented(text)]
    return [*lines, ""]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _value(cfg: CfgNode, key: str) -> object:
    value: Any = cfg
    for part in key.split("."):
        value = getattr(value, part)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def latest_scores(latest: Mapping[str, tuple[float, int]], dataset: str) -> Scores:
    """Return the last scores of a training, if it was scored, from detectron2's event storage."""
    found: dict[str, dict[str, float]] = {}
    for name, (value, _) in latest.items():
        kind, _, metric = name.partition("/")
        if kind in _KINDS:
            found.setdefault(kind, {})[metric] = value
    return {dataset: found} if found else {}


def _scores_section(scores: Scores, titles: Mapping[str, str]) -> list[str]:
    rows = [
        [escape(titles[dataset]), what, *(_percent(kinds[kind].get(metric)) for metric in _METRICS)]
        for dataset, kinds in scores.items()
        for kind, what in _KINDS.items()
        if kind in kinds
    ]
    lines = ["## Scores", ""]
    if not rows:
        return [*lines, "Not scored yet.", ""]
    table = grid(["dataset", "", *_METRICS], rows)
    return [*lines, "In percent, as COCO defines them.", "", table, ""]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _use_section() -> list[str]:
    return [
        "## Use",
        "",
        "    import cuvler",
        "    from PIL import Image",
        "",
        '    detector = cuvler.load_detector("path/to/this/folder")',
        '    found = detector(Image.open("photo.jpg").convert("RGB"))',
        "    found.pred_boxes, found.pred_masks, found.scores",
        "",
        "or `cuvler predict photo.jpg --detector path/to/this/folder --output found`. "
        f"`{SAFE_MODEL}` has the weights of `{MODEL}`; either is enough, with `config.yaml`.",
        "",
    ]


def _licence_section(training: Mapping[str, Any]) -> list[str]:
    rows = []
    if weights := training["weights"]:
        known = "Apache-2.0 (DINO)" if Path(weights).stem == "dino_resnet50" else "see their source"
        rows.append(f"- initial weights, {escape(weights)}: {known}")
    # Annotations from elsewhere may say anything of themselves.
    backbones = training["made_with"].get("backbones")
    for name in backbones if isinstance(backbones, list) else ():
        if isinstance(name, str) and (spec := BACKBONES.get(name)) and spec.timm:
            rows.append(f"- {name}, of the features behind the pseudo-masks: {license_of(spec)}")
    text = "Add yours. Those of what it was made from, as far as they are known:"
    return ["## Licence", "", text, "", *rows, "- the images: see their source"]
