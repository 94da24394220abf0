"""``--method``, and the settings of the chosen method as options of the command."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import click

from cuvler.errors import ConfigError
from cuvler.pseudo_masks.methods import DEFAULT, Method, find_method, method_names


class MethodCommand(click.Command):
    """A command with ``--method`` and one option per setting of that method.

    The callback receives ``method`` (the name) and the settings as keyword arguments. Backbones
    are not settings.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find ``--method`` first, because the other options depend on it."""
        ctx.meta[__name__] = _chosen(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all options, those of the method last."""
        own = super().get_params(ctx)
        name = ctx.meta.get(__name__, DEFAULT)
        # An unknown name is reported when --method is parsed.
        settings = _options(name, own) if name in method_names() else []
        choice = click.Choice(method_names())
        help_ = "The method that computes the masks."
        method = click.Option(
            ["--method"], type=choice, default=DEFAULT, show_default=True, help=help_
        )
        return [method, *own, *settings]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, with one section per method."""
        own = super().get_params(ctx)
        of_method = {option.name for option in _options(ctx.meta.get(__name__, DEFAULT), own)}
        shared = [option for option in self.get_params(ctx) if option.name not in of_method]
        sections = {"Options": shared}
        for name in method_names():
            sections[f"Options of --method {name}"] = _options(name, own)
        for title, parameters in sections.items():
            options = [option for option in parameters if isinstance(option, click.Option)]
            records = [record for option in options if (record := option.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class SettingsCommand(click.Command):
    """A command with one option per setting of any method, repeated for several values.

    The callback receives ``settings``: name -> the values given, of those that were given. As in
    :class:`MethodCommand`, a list is written by repeating its option, so that it is one value.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Collect the settings in one argument."""
        rest = super().parse_args(ctx, args)
        given = {name: ctx.params.pop(name) for name in _methods_by_setting()}
        ctx.params["settings"] = {
            name: [values] if _is_list(name) else list(values)
            for name, values in given.items()
            if values
        }
        return rest

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all options, the settings last."""
        own = super().get_params(ctx)
        for name in method_names():
            _require_free(name, own)
        return [*own, *map(_repeatable, _methods_by_setting())]


def _methods_by_setting() -> dict[str, list[type[Method]]]:
    """Return the methods that have each setting."""
    found: dict[str, list[type[Method]]] = {}
    for method in map(find_method, method_names()):
        for name in method.settings():
            found.setdefault(name, []).append(method)
    return found


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = _methods_by_setting()[name][0].model_json_schema()["properties"][name]
    return schema


def _is_list(name: str) -> bool:
    return _schema(name).get("type") == "array"


def _repeatable(name: str) -> click.Option:
    methods, schema = _methods_by_setting()[name], _schema(name)
    is_switch = schema.get("type") == "boolean"
    type_ = (
        click.BOOL if is_switch else _type(schema.get("items", {}) if _is_list(name) else schema)
    )
    description = methods[0].model_fields[name].description
    help_ = f"{', '.join(method.name for method in methods)}: {description}"
    return click.Option([_flag(name)], type=type_, multiple=True, help=help_)


def method_arguments(method: Method) -> list[str]:
    """Return the command-line options for a method's settings."""
    return [word for name in method.settings() for word in _words(name, getattr(method, name))]


def _words(name: str, value: Any) -> Iterator[str]:
    flag = _flag(name)
    if isinstance(value, bool):
        yield flag if value else flag.replace("--", "--no-", 1)
        return
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if one is not None:
            yield from (flag, str(one))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _chosen(args: list[str]) -> str:
    """Return the method's name from a command's arguments."""
    found = DEFAULT
    for word, following in pairwise([*args, ""]):
        if word == "--method":
            found = following
        elif word.startswith("--method="):
            found = word.partition("=")[2]
    return found


def _options(name: str, own: list[click.Parameter]) -> list[click.Parameter]:
    _require_free(name, own)
    method = find_method(name)
    schema = method.model_json_schema()["properties"]
    return [_option(method, setting, schema[setting]) for setting in method.settings()]


def _require_free(name: str, own: list[click.Parameter]) -> None:
    if taken := {parameter.name for parameter in own} & set(find_method(name).settings()):
        raise ConfigError(
            f"method {name!r}: settings cannot have the names of the command's own options: "
            f"{', '.join(sorted(map(str, taken)))}"
        )


def _option(method: type[Method], name: str, schema: dict[str, Any]) -> click.Option:
    field = method.model_fields[name]
    several = schema.get("type") == "array"
    flag = _flag(name)
    is_switch = schema.get("type") == "boolean"
    # To click, a default of None is a value, with which a required option may be missing.
    default = (
        {} if field.is_required() else {"default": field.get_default(call_default_factory=True)}
    )
    return click.Option(
        [f"{flag}/{flag.replace('--', '--no-', 1)}" if is_switch else flag],
        type=None if is_switch else _type(schema.get("items", {}) if several else schema),
        multiple=several,
        required=field.is_required(),
        show_default=True,
        help=field.description,
        **default,
    )


def _type(schema: dict[str, Any]) -> "click.ParamType[Any, Any]":
    """Return the click type for a setting's JSON schema; the method validates the value later."""
    if "enum" in schema:
        return click.Choice(schema["enum"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    is_open = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
    unlimited = low is None and high is None
    if schema.get("type") == "integer":
        return click.INT if unlimited else click.IntRange(low, high, *is_open)
    if schema.get("type") == "number":
        return click.FLOAT if unlimited else click.FloatRange(low, high, *is_open)
    return click.STRING
