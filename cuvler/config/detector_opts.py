"""Checks of ``detector.opts`` and ``fine_tuning.opts`` without importing detectron2.

The import takes seconds, and detectron2 need not be installed where Snakemake runs. Instead
detector_keys.json lists the keys of :func:`cuvler.detector.config.base_config` with their types;
docs/configuration.py writes it.
"""

import ast
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

KEYS = Path(__file__).with_name("detector_keys.json")

_WORDS = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number with a decimal point",
    "str": "text",
    "tuple": 'a list, written as text: "(1, 2)"',
    "list": 'a list, written as text: "[1, 2]"',
}
_KINDS = {"tuple": "list", "NoneType": "nothing"}


def key_types(config: Mapping[str, Any], parent: str = "") -> dict[str, str]:
    """Return key -> name of the type of its value, for all keys of a detectron2 config."""
    types: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            types |= key_types(value, f"{parent}{key}.")
        else:
            types[f"{parent}{key}"] = type(value).__name__
    return types


def opts_mistakes(key: str, opts: Sequence[str | int | float | bool]) -> Iterator[str]:
    """Describe unknown keys, values of the wrong type, and a key without a value.

    Args:
        key: of the setting, for messages.
        opts: detectron2's ``KEY, VALUE, KEY, VALUE ...``.
    """
    if len(opts) % 2:
        yield f"{key}: {len(opts)} items, but they come in pairs: [KEY, VALUE, KEY, VALUE ...]"
        return
    known = _known() if opts else {}
    for name, value in zip(map(str, opts[::2]), opts[1::2], strict=True):
        if name not in known:
            yield f"{key}: {name}: {_unknown(name, known)}"
        elif not _fits(value, known[name]):
            yield f"{key}: {name}: {value!r} is not {_WORDS[known[name]]}"


@cache
def _known() -> dict[str, str]:
    types: dict[str, str] = json.loads(KEYS.read_text(encoding="utf-8"))
    return types


def _unknown(name: str, known: Mapping[str, str]) -> str:
    if any(other.startswith(f"{name}.") for other in known):
        return "a group of settings, not a setting"
    close = difflib.get_close_matches(name, known, n=1)
    return "detectron2 has no such setting" + (f"; did you mean {close[0]}?" if close else "")


def _fits(value: str | int | float | bool, wanted: str) -> bool:
    """Return whether detectron2 takes a value for a setting by the type of its default.

    Every value reaches it as text of the command line, which it evaluates if it can.
    """
    try:
        kind = type(ast.literal_eval(str(value))).__name__
    except (ValueError, SyntaxError):
        kind = "str"
    except TypeError:  # such as {[]}, on which detectron2 fails too
        return False
    return "NoneType" in (kind, wanted) or _KINDS.get(kind, kind) == _KINDS.get(wanted, wanted)
