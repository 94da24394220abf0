"""Write config/config.yaml, its JSON schema and docs/configuration.md from the settings' model.

Where detectron2 is installed, also the list of its keys that ``detector.opts`` is checked with.
"""

import importlib.util
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cuvler.config.detector_opts import KEYS, key_types
from cuvler.config.files import json_schema
from cuvler.config.messages import forms, kind
from cuvler.config.model import settings_model

ROOT = Path(__file__).parents[1]
_WIDTH = 100

_NOTE = "Written by docs/configuration.py from the model in cuvler/config"
_CONFIG_HEAD = f"""\
# The settings of the whole workflow, with their defaults. A key that is not known stops the run
# before any job starts. Settings can be changed for one run: snakemake --config train=my_photos
# or by a file of your own:                                   snakemake --configfile mine.yaml
# {_NOTE}.
"""
_PAGE_HEAD = f"""\
# Configuration

<!-- {_NOTE}; edit that. -->

Settings are in `config/config.yaml`. Change them for one run with `snakemake --config KEY=VALUE`,
or keep those that differ in a file of your own and give it by `--configfile`. A key that is not
listed here stops the run before anything starts, and the message names the key that is closest.
Inside braces, as in `--config 'pseudo_masks={{maskcut: {{n: 4}}}}'`, Snakemake takes numbers for
text: put those into a file. `NAME` is a name of your own, of letters, digits, _ and -.
"""


class _Dumper(yaml.SafeDumper):
    """Text of several lines is written as it is."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def files() -> dict[Path, str]:
    """Return the content of each generated file."""
    model = settings_model()
    schema, defaults = json_schema(model), model().model_dump(mode="json")
    page = _page(schema, {"": defaults}, schema["$defs"])
    return {
        ROOT / "config/config.yaml": _CONFIG_HEAD + "\n".join(_config(schema, defaults)) + "\n",
        ROOT / "workflow/schemas/config.schema.yaml": f"# {_NOTE}.\n{_schema(schema)}",
        ROOT / "docs/configuration.md": _PAGE_HEAD + "".join(page),
        **({KEYS: _detector_keys()} if importlib.util.find_spec("detectron2") else {}),
    }


def _detector_keys() -> str:
    from cuvler.detector.config import base_config

    return json.dumps(key_types(base_config()), indent=0, sort_keys=True) + "\n"


def _schema(schema: dict[str, Any]) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return yaml.dump(head | schema, Dumper=_Dumper, sort_keys=False, width=_WIDTH)


def _config(schema: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """Write the defaults as YAML, a blank line before each section."""
    for name, inner in schema["properties"].items():
        yield ""
        yield from _setting(name, inner, values[name], schema["$defs"], "", is_commented=True)


def _setting(
    name: str,
    schema: Mapping[str, Any],
    value: Any,
    defs: Mapping[str, Any],
    indent: str,
    *,
    is_commented: bool,
) -> Iterator[str]:
    if is_commented:
        for line in _lines(_description(schema, defs), _WIDTH - len(indent) - 2):
            yield f"{indent}# {line}".rstrip()
    if not (isinstance(value, dict) and value):
        yield f"{indent}{name}: {_flow(value)}"
        return
    yield f"{indent}{name}:"
    indent += "  "
    form = _object(schema, defs)
    if "properties" in form:
        for key, inner in form["properties"].items():
            yield from _setting(key, inner, value[key], defs, indent, is_commented=is_commented)
        return
    entry = form["additionalProperties"]
    for number, (key, inner) in enumerate(value.items()):
        # Keys of the first entry stand for those of the others.
        described = {**_object(entry, defs), "description": ""}
        yield from _setting(key, described, inner, defs, indent, is_commented=number == 0)


def _page(
    schema: Mapping[str, Any], values: Mapping[str, Any], defs: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """Describe the keys of a section; ``values`` has the defaults of each entry."""
    for name, inner in schema["properties"].items():
        key = f"{path}{name}"
        yield f"\n{'###' if path else '##'} `{key}`\n"
        found = {entry: value[name] for entry, value in values.items()}
        form = _object(inner, defs)
        if "properties" not in form or len(forms(inner, defs)) > 1:
            allowed = f"*Allowed:* {kind(inner, defs)}."
            yield f"\n{allowed} {_defaults(name, schema, found)}".rstrip() + "\n"
        if text := _description(inner, defs):
            yield f"\n{_markdown(text)}\n"
        if "properties" in form:
            yield from _page(form, found, defs, f"{key}.")
        elif isinstance(form.get("additionalProperties"), Mapping):
            entry = _object(form["additionalProperties"], defs)
            if "properties" in entry:
                (defaults,) = found.values()
                yield from _page(entry, defaults, defs, f"{key}.NAME.")


def _defaults(name: str, schema: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    if len(values) > 1:
        return " ".join(f"*{entry}:* `{_flow(value)}`." for entry, value in values.items())
    default = values.get("", schema["properties"][name].get("default"))
    if default is None:
        return "*Required.*" if name in schema.get("required", ()) else ""
    if isinstance(default, dict) and default:
        return f"*Default:* {' and '.join(default)}, as below."
    return f"*Default:* `{_flow(default)}`."


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The form of a value that has keys; empty if there is none."""
    return next((form for form in forms(schema, defs) if form.get("type") == "object"), {})


def _description(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "description" in schema or "$ref" not in schema:
        return str(schema.get("description", ""))
    (form,) = forms(schema, defs)
    return str(form.get("description", ""))


def _lines(text: str, width: int) -> Iterator[str]:
    """Fill paragraphs; indented lines are examples and stay as they are."""
    paragraph: list[str] = []
    for line in [*text.splitlines(), "  "]:
        if not line.startswith("  "):
            paragraph.append(line)
            continue
        yield from textwrap.wrap(" ".join(paragraph), width, break_on_hyphens=False)
        paragraph = []
        if line.strip():
            yield line


def _markdown(text: str) -> str:
    shown: list[str] = []
    before = ""
    for line in _lines(text, _WIDTH):
        is_example = line.startswith("  ")
        if is_example != before.startswith("  "):
            shown.append("")
        shown.append(f"  {line}" if is_example else line)
        before = line
    return "\n".join(shown).strip("\n")


def _flow(value: Any) -> str:
    if value == "":
        return '""'
    return yaml.safe_dump([value], default_flow_style=True, width=1000).strip()[1:-1]


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
