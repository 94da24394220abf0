"""Write docs/configuration.md from the comments of config/config.yaml and its schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cuvler.config import config_schema

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config/config.yaml"
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
PAGE = ROOT / "docs/configuration.md"

_HEAD = """\
# Configuration

<!-- Written by docs/configuration.py from config/config.yaml and its schema; edit those. -->

Settings live in `config/config.yaml`. Change them for one run with `snakemake --config KEY=VALUE`,
or keep your own in a file that says only what differs and give it by `--configfile`. A key that is
not listed here stops the run before anything starts, and the message names the key that is closest.
Inside braces, as in `--config 'pseudo_masks={maskcut: {n: 4}}'`, Snakemake takes numbers for text:
put those into a file.
"""


def reference() -> str:
    """Give the page's text."""
    lines = CONFIG.read_text(encoding="utf-8").splitlines()
    schema = config_schema(SCHEMA)
    tree = yaml.compose("\n".join(lines), Loader=yaml.SafeLoader)
    return _HEAD + "".join(_sections(tree, schema, schema["$defs"], lines, ""))


def _sections(
    tree: yaml.MappingNode,
    schema: dict[str, Any],
    defs: dict[str, Any],
    lines: list[str],
    path: str,
) -> Iterator[str]:
    properties = schema.get("properties", {})
    for key, value in tree.value:
        name = f"{path}{key.value}"
        inner = _resolve(properties.get(key.value, schema.get("additionalProperties")), defs)
        comment = _comment(lines, key.start_mark.line)
        nested = isinstance(value, yaml.MappingNode) and value.value
        yield f"\n{'###' if path else '##'} `{name}`\n"
        if not nested:
            default = lines[value.start_mark.line][value.start_mark.column :].strip()
            yield f"\n*{_kind(inner, defs)}; default* `{default or value.value}`\n"
        if comment:
            yield f"\n{comment}\n"
        if nested:
            yield from _sections(value, inner, defs, lines, f"{name}.")


def _resolve(schema: Any, defs: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise KeyError("config.yaml has a key that the schema does not know")
    return _resolve(defs[schema["$ref"].rsplit("/", 1)[-1]], defs) if "$ref" in schema else schema


def _comment(lines: list[str], line: int) -> str:
    """The comment above a key as Markdown: deeper indented lines are examples, as they stand."""
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    text = [text.lstrip().removeprefix("#").removeprefix(" ") for text in lines[first:line]]
    shown = []
    for before, now in zip(["", *text], text, strict=False):
        is_example, was_example = now.startswith("  "), before.startswith("  ")
        if is_example != was_example:
            shown.append("")
        shown.append(f"    {now.removeprefix('  ')}" if is_example else now)
    return "\n".join(shown).strip("\n")


def _kind(schema: dict[str, Any], defs: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(_resolve(s, defs), defs) for s in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if kind == "array":
        return f"list of {_kind(_resolve(schema['items'], defs), defs)}"
    words = {"string": "text", "object": "mapping", "integer": "whole number"}
    kinds = kind if isinstance(kind, list) else [kind]
    text = " or ".join(words.get(one, one) for one in kinds)
    for bound, sign in (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ):
        text += f" {sign} {schema[bound]}" if bound in schema else ""
    return text


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
