"""The option type ``NAME=PATH``, for options that are given several times."""

from pathlib import Path

import click


def named_path(value: str) -> tuple[str, Path]:
    """Split ``NAME=PATH`` into a pair; the path must exist."""
    name, equals, path = value.partition("=")
    if not (name and equals and path):
        raise click.BadParameter(f"{value!r} is not NAME=PATH")
    if not Path(path).exists():
        raise click.BadParameter(f"{path}: no such file")
    return name, Path(path)
