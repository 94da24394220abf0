"""``cuvler metrics``: gather a dataset's scores into one table."""

from pathlib import Path

import click

from cuvler.commands.named_path import named_path
from cuvler.files import read_json, write_json


@click.command("metrics")
@click.option(
    "--entry",
    "entries",
    required=True,
    multiple=True,
    type=named_path,
    metavar="NAME=FILE",
    help="One row: its name and the file `cuvler evaluation` wrote. Repeat, in order.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Json of all rows.")
def command(entries: tuple[tuple[str, Path], ...], output: Path) -> None:
    """Gather scores of one dataset, in the order given."""
    names = [name for name, _ in entries]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise click.BadParameter(f"given twice: {', '.join(sorted(twice))}", param_hint="--entry")
    write_json(output, {name: read_json(path) for name, path in entries})
