"""Translate detector configs of CutLER and CuVLER to this project's keys.

Their configs are detectron2 configs with a few more keys, known here from the papers and the
systems' documentation. The tables below list these keys, which are found in any section of the
file. A key that is neither in a table nor detectron2's is an error when the config is merged.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detectron2.config import CfgNode

from cuvler.detector.solver import is_predictor
from cuvler.errors import ConfigError

Content = dict[str, Any]
_Path = tuple[str, ...]
_Put = Callable[[str, Any, str], None]  # our key, its value, their key

# Their key -> ours.
RENAMED = {
    "USE_DROPLOSS": "MODEL.ROI_HEADS.DROP_LOSS",
    "DROPLOSS_IOU_THRESH": "MODEL.ROI_HEADS.DROP_LOSS_IOU_THRESH",
    "USE_SOFT_TARGETS": "MODEL.ROI_HEADS.SOFT_TARGETS",
    "COPY_PASTE": "INPUT.COPY_PASTE.ENABLED",
    "COPY_PASTE_RATE": "INPUT.COPY_PASTE.RATE",
    "COPY_PASTE_RANDOM_NUM": "INPUT.COPY_PASTE.RANDOM_COUNT",
}
# Their keys that need more than a new name -> ours.
COMBINED = {
    "BASE_LR_MULTIPLIER": "SOLVER.PREDICTOR_LR_FACTOR",
    "BASE_LR_MULTIPLIER_NAMES": "SOLVER.PREDICTOR_LR_FACTOR",
    "COPY_PASTE_MIN_RATIO": "INPUT.COPY_PASTE.SCALE",
    "COPY_PASTE_MAX_RATIO": "INPUT.COPY_PASTE.SCALE",
}
# Their keys that do not affect training -> the equivalent here.
_WITHOUT_EFFECT = {
    "VISUALIZE_COPY_PASTE": "every training writes augmented.png with its first samples",
    "NO_SEGM": "`cuvler evaluation` can score boxes only",
}
_EVALUATION = "scoring is set by options of `cuvler evaluation`"
# detectron2's keys that are inputs of the commands here.
_ELSEWHERE = {
    "DATASETS.TRAIN": "the annotations are an input of training",
    "DATASETS.TEST": "detectors are scored by `cuvler evaluation`",
    "MODEL.WEIGHTS": "initial weights are an input of training",
    "OUTPUT_DIR": "the folder is chosen when training starts",
}
# Their heads, and detectron2's -> ours, which equal detectron2's if DropLoss and soft targets are
# off.
_ROI_HEADS = {
    "CustomCascadeROIHeads": "PseudoLabelCascadeROIHeads",
    "CustomStandardROIHeads": "PseudoLabelStandardROIHeads",
    "CascadeROIHeads": "PseudoLabelCascadeROIHeads",
    "StandardROIHeads": "PseudoLabelStandardROIHeads",
}
_HEADS, _MASK_HEAD = "MODEL.ROI_HEADS.NAME", "MODEL.ROI_MASK_HEAD.NAME"
_SCALE = (0.3, 1.0)  # the papers' zero-shot detectors; used if a config has only one bound
_CUSTOM_HEADS = ("CustomCascadeROIHeads", "CustomStandardROIHeads")
_MASK_HEADS = {"MaskRCNNConvUpsampleHead": "PseudoLabelMaskHead"}


def is_published(content: Content, base: CfgNode) -> bool:
    """Return whether a config has keys or heads of CutLER or CuVLER.

    Args:
        content: content of the YAML file, including its ``_BASE_``.
        base: all keys known here.
    """
    return _get(content, _HEADS) in _CUSTOM_HEADS or bool(_their_keys(content, base))


def translate(content: Content, base: CfgNode) -> tuple[Content, list[str]]:
    """Translate a config of CutLER or CuVLER.

    DropLoss is set to that of the released models; see
    ``MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH``.

    Args:
        content: content of the YAML file, including its ``_BASE_``.
        base: all keys known here.

    Returns:
        The content with this project's keys, and one log line per key that is translated or has
        no effect.

    Raises:
        ConfigError: a key that affects training cannot be translated.
    """
    theirs = _their_keys(content, base)
    values = {path[-1]: value for path, value in theirs.items()}
    names = {path[-1]: ".".join(path) for path in theirs}
    result = _without(content, theirs)
    lines: list[str] = []

    def put(key: str, value: Any, reason: str) -> None:
        _set(result, key, value)
        lines.append(f"{reason} -> {key}: {value}")

    for key, ours in RENAMED.items():
        if key in values:
            put(ours, values[key], names[key])
    _paste(values, names, put)
    _learn(values, names, content, put)
    _name_heads(result, put)
    if values.get("USE_DROPLOSS"):
        put("MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH", "released", names["USE_DROPLOSS"])
    if _get(result, "MODEL.ROI_HEADS.NUM_CLASSES") not in (None, 1):
        put("DATASETS.CLASS_AGNOSTIC", False, "MODEL.ROI_HEADS.NUM_CLASSES")
    lines += [f"{names[key]}: no effect; {_reason(key)}" for key in values if _reason(key)]
    for key, reason in _ELSEWHERE.items():
        if _get(result, key) is not None:
            result = _without(result, {tuple(key.split(".")): None})
            lines.append(f"{key}: no effect; {reason}")
    return result, lines


def _reason(key: str) -> str:
    if key.startswith("EVAL"):
        return _EVALUATION
    return _WITHOUT_EFFECT.get(key, "")


def _paste(values: Content, names: dict[str, str], put: _Put) -> None:
    """Combine the two ratios to a range; any setting of copy-paste turns it on."""
    bounds = [values.get(key) for key in ("COPY_PASTE_MIN_RATIO", "COPY_PASTE_MAX_RATIO")]
    given = [key for key in values if key.startswith("COPY_PASTE")]
    if bounds != [None, None]:
        low, high = (
            value if bound is None else bound for bound, value in zip(bounds, _SCALE, strict=True)
        )
        put("INPUT.COPY_PASTE.SCALE", [low, high], names[given[-1]])
    if given and "COPY_PASTE" not in given:
        put("INPUT.COPY_PASTE.ENABLED", values.get("COPY_PASTE_RATE") != 0, names[given[0]])


def _learn(values: Content, names: dict[str, str], result: Content, put: _Put) -> None:
    """Set the learning rate factor of the predictors, if it applies to exactly these."""
    factor, parts = (values.get(f"BASE_LR_MULTIPLIER{end}") for end in ("", "_NAMES"))
    if factor in (None, 1) or parts == []:
        return
    key = names.get("BASE_LR_MULTIPLIER_NAMES", names["BASE_LR_MULTIPLIER"])
    if not isinstance(parts, list) or not _are_predictors(parts, result):
        raise ConfigError(
            f"{key}: {parts}: a separate learning rate is supported only for the class, box and "
            "mask predictors of all stages (SOLVER.PREDICTOR_LR_FACTOR); name all of these and no "
            "others"
        )
    put("SOLVER.PREDICTOR_LR_FACTOR", float(factor), names["BASE_LR_MULTIPLIER"])


def _are_predictors(parts: list[Any], result: Content) -> bool:
    """Return whether parts of parameter names match all predictors and nothing else."""
    cascade = "Cascade" in str(_get(result, "MODEL.ROI_HEADS.NAME"))
    stages = [f"{stage}." for stage in range(3)] if cascade else [""]
    modules = [f"box_predictor.{s}{p}" for s in stages for p in ("cls_score", "bbox_pred")]
    parameters = [
        f"roi_heads.{module}.{kind}"
        for module in [*modules, "mask_head.predictor"]
        for kind in ("weight", "bias")
    ]
    assert all(map(is_predictor, parameters))
    used = {part for part in parts for parameter in parameters if str(part) in parameter}
    covered = all(any(str(part) in parameter for part in parts) for parameter in parameters)
    own = all(re.search("cls_score|bbox_pred|predictor", str(part)) for part in parts)
    return covered and own and len(used) == len(set(parts))


def _name_heads(result: Content, put: _Put) -> None:
    name = _get(result, _HEADS)
    if name not in _ROI_HEADS:
        raise ConfigError(
            f"{_HEADS}: {name} has no DropLoss and soft targets; choose one of "
            f"{', '.join(_ROI_HEADS)}"
        )
    put(_HEADS, _ROI_HEADS[name], _HEADS)
    mask = _get(result, _MASK_HEAD) or "MaskRCNNConvUpsampleHead"
    if mask in _MASK_HEADS:
        put(_MASK_HEAD, _MASK_HEADS[mask], _MASK_HEAD)


def _their_keys(content: Content, base: CfgNode) -> dict[_Path, Any]:
    """Return the tables' keys in any section, except those that are also detectron2's."""
    tables = {*RENAMED, *COMBINED, *_WITHOUT_EFFECT}
    return {
        path: value
        for path, value in _leaves(content)
        if (path[-1] in tables or path[-1].startswith("EVAL")) and not _is_known(path, base)
    }


def _is_known(path: _Path, base: CfgNode) -> bool:
    node: Any = base
    for key in path:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True


def _leaves(content: Content, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _without(content: Content, paths: Iterable[_Path], path: _Path = ()) -> Content:
    """Copy without some leaves, and without sections that become empty."""
    result: Content = {}
    for key, value in content.items():
        if isinstance(value, dict):
            if inner := _without(value, paths, (*path, key)):
                result[key] = inner
        elif (*path, key) not in paths:
            result[key] = value
    return result


def _get(content: Content, key: str) -> Any:
    node: Any = content
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _set(content: Content, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        content = content.setdefault(part, {})
    content[last] = value
