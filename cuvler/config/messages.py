"""Messages for invalid configs, one line per mistake: key, value, and what is allowed."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cuvler.config.fields import ADDRESS, FILE_NAME, NAME_OR_NONE, SHA256

Mistake = Mapping[str, Any]
Schema = Mapping[str, Any]

# Pattern -> what it matches, and the characters allowed; other patterns are those of names.
_PATTERNS = {
    FILE_NAME: ("file name", "letters, digits, _ . and -"),
    NAME_OR_NONE: ("name or nothing", "letters, digits, _ and -"),
    ADDRESS: ("address", "https://... or gdrive:ID"),
    SHA256: ("sha256", "64 hexadecimal digits"),
}
_NAME = ("name", "letters, digits, _ and -")
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
}
_BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}


def describe(error: ValidationError, schema: Schema) -> list[str]:
    """Describe each mistake once, in the order of the config.

    Args:
        error: of the model.
        schema: the model's JSON schema.
    """
    found: dict[tuple[str, ...], str] = {}
    for mistake in map(dict[str, Any], error.errors(include_url=False)):
        key, allowed = _locate(mistake, schema)
        # A value that fits none of several alternatives has an error for each.
        if key not in found or mistake["type"] == "value_error":
            found[key] = _line(key, mistake, allowed, schema["$defs"])
    # Errors inside an alternative are more precise than the error of the whole value.
    inner = {key[:end] for key in found for end in range(len(key))}
    return [line for key, line in found.items() if key not in inner]


def _locate(mistake: Mistake, schema: Schema) -> tuple[tuple[str, ...], Schema]:
    """Find the key of a mistake, and the schema of its value or, if it is unknown, its parent."""
    defs, key = schema["$defs"], list[str]()
    above = here = schema
    for part in mistake["loc"]:
        if part == "[key]":
            return tuple(key), above["propertyNames"]
        # Other parts name an alternative, such as a member of a union.
        if (inner := _step(here, part, defs)) is not None:
            above, here = here, inner
            key.append(str(part))
    if mistake["type"] == "extra_forbidden":
        key.append(str(mistake["loc"][-1]))
    return tuple(key), here


def _step(schema: Schema, part: int | str, defs: Schema) -> Schema | None:
    for form in forms(schema, defs):
        if isinstance(part, int):
            inner = form.get("items")
        else:
            inner = form.get("properties", {}).get(part) or form.get("additionalProperties")
        if isinstance(inner, Mapping):
            return inner
    return None


def forms(schema: Schema, defs: Schema) -> list[Schema]:
    """Return the alternatives of a schema, without null and with references resolved."""
    schema = _resolve(schema, defs)
    found = [form for inner in schema.get("anyOf", ()) for form in forms(inner, defs)]
    return [form for form in found or [schema] if form.get("type") != "null"]


def _resolve(schema: Schema, defs: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    resolved: Schema = defs[reference.rsplit("/", 1)[-1]]
    return resolved


def kind(schema: Schema, defs: Schema) -> str:
    """Describe the values that a schema allows."""
    return " or ".join(_words(form, defs) for form in forms(schema, defs))


def _words(form: Schema, defs: Schema) -> str:
    if "const" in form:
        return str(form["const"])
    if "enum" in form:
        return ", ".join(map(str, form["enum"]))
    if form.get("type") == "array":
        limits = ["at least one"] if form.get("minItems") else []
        limits += ["no repeats"] if form.get("uniqueItems") else []
        suffix = f" ({', '.join(limits)})" if limits else ""
        items = re.sub(r"\b(name|path|number)\b", r"\1s", kind(form["items"], defs))
        return f"list of {items}{suffix}"
    if "pattern" in form:
        return _PATTERNS.get(form["pattern"], _NAME)[0]
    if form.get("format") == "path":
        return "path"
    bounds = [f"{word} {form[bound]}" for bound, word in _BOUNDS.items() if bound in form]
    return " ".join([_WORDS[form["type"]], *bounds])


def _line(key: Sequence[str], mistake: Mistake, allowed: Schema, defs: Schema) -> str:
    name, given = ".".join(key) or "the config", mistake["input"]
    value = json.dumps(given, default=str)
    if mistake["type"] == "extra_forbidden":
        known = [k for form in forms(allowed, defs) for k in form.get("properties", ())]
        close = difflib.get_close_matches(key[-1], known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{name}: unknown key (value {value}); {hint}known: {', '.join(known)}"
    if mistake["type"] == "missing":
        return f"{name}: missing; needed: {kind(allowed, defs)}"
    if mistake["type"] == "value_error":
        return f"{name}: {value} is not allowed ({mistake['ctx']['error']})"
    line = f"{name}: {value} is not allowed; allowed: {kind(allowed, defs)}"
    if mistake["type"] == "string_pattern_mismatch":
        spelling = _PATTERNS.get(mistake["ctx"]["pattern"], _NAME)[1]
        return f"{line} ({spelling})"
    if mistake["type"] == "tuple_type" and not isinstance(given, list | dict):
        return f"{line}; write [{given}]"
    if "opts" in key and isinstance(given, list):
        return f"{line}; write a list as text: {json.dumps(value)}"
    return line
