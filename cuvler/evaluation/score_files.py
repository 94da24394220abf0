"""Read the files of scores: one entry's, from `cuvler evaluation`, and those of a dataset.

Every key is required, and others are refused, so that a damaged or misspelt key is not taken for a
metric without ground truth.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvler.coco.values import Refused, finite, missing, refused, shown
from cuvler.errors import DataError
from cuvler.evaluation.metrics import CURVES, METRICS
from cuvler.files import read_json

_IOU_TYPES = ("bbox", "segm")
_NUMBERS = ("num_images", "num_ground_truth", "num_results")
_CURVES = "precision"
# The recall at another number of detections, and the AP of a category.
_MORE = re.compile(r"AR[0-9]+|AP-.+", re.DOTALL)
_RECALLS = 101


def read_scores(path: Path) -> dict[str, Any]:
    """Read a file written by ``cuvler evaluation``; see :func:`cuvler.evaluation.evaluate_all`.

    Raises:
        DataError: the file is missing or not such a file; the message has the key.
    """
    entry = read_json(path)
    try:
        _check_entry(entry)
        _check_curves(entry)
    except Refused as error:
        raise _other(path, "evaluation", error) from None
    scores: dict[str, Any] = entry
    return scores


def read_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file written by ``cuvler metrics``: entry -> its scores without curves.

    Raises:
        DataError: as for :func:`read_scores`.
    """
    entries = read_json(path)
    if not isinstance(entries, dict):
        raise _other(path, "metrics", f"{shown(entries)} is not an object")
    for name, entry in entries.items():
        try:
            _check_entry(entry)
        except Refused as error:
            raise _other(path, "metrics", f"{shown(name)}: {error}") from None
    return entries


def _other(path: Path, command: str, reason: object) -> DataError:
    return DataError(
        f"{path}: not what `cuvler {command}` writes: {reason}; delete the file and run again"
    )


def _check_entry(entry: Any) -> None:
    if not isinstance(entry, dict):
        raise Refused(f"{shown(entry)} is not an object of scores")
    if not entry.keys() & set(_IOU_TYPES):
        raise Refused("has neither 'bbox' nor 'segm'")
    _refuse_others(entry, (*_IOU_TYPES, *_NUMBERS, _CURVES))
    for iou_type in _IOU_TYPES:
        if iou_type in entry:
            _check_metrics(iou_type, entry[iou_type])
    for key in _NUMBERS:
        if key not in entry:
            raise missing(key, "a whole number of 0 or more")
        if type(entry[key]) is not int or entry[key] < 0:
            raise refused(key, entry[key], "a whole number of 0 or more")


def _check_metrics(iou_type: str, scores: Any) -> None:
    if not isinstance(scores, dict):
        raise refused(iou_type, scores, "an object of metrics")
    for key in METRICS:
        if key not in scores:
            raise Refused(f"{iou_type!r} has no {key!r}")
    _refuse_others(scores, [key for key in scores if key in METRICS or _MORE.fullmatch(key)])
    for key, value in scores.items():
        if value is not None:
            finite(key, value, low=0, high=100)


def _check_curves(entry: Mapping[str, Any]) -> None:
    curves = entry.get(_CURVES)
    if not isinstance(curves, dict):
        raise refused(_CURVES, curves, "an object of curves")
    _refuse_others(curves, [key for key in _IOU_TYPES if key in entry])
    for iou_type, named in curves.items():
        # Without ground truth there is no curve.
        if not isinstance(named, dict) or named.keys() not in (set(), set(CURVES)):
            raise refused(iou_type, named, f"the curves {', '.join(CURVES)}")
        for key, values in named.items():
            if not isinstance(values, list) or len(values) != _RECALLS:
                raise refused(key, values, f"{_RECALLS} numbers")
            for value in values:
                finite(key, value, low=0, high=100)


def _refuse_others(found: Mapping[str, Any], known: Any) -> None:
    others = [key for key in found if key not in known]
    if others:
        raise Refused(f"{shown(others[0])} is not a known key")
