"""``cuvler metrics``: gather a dataset's scores into one table."""

from pathlib import Path
from typing import Any

import click

from cuvler.commands import options
from cuvler.errors import DataError
from cuvler.files import read_json, write_json


@click.command("metrics")
@options.named_paths(
    "--entry",
    "NAME",
    "entries",
    required=True,
    help="One row: its name and the file `cuvler evaluation` wrote. Repeat, in order.",
)
@options.output("Json of all rows.")
def command(entries: tuple[tuple[str, Path], ...], output: Path) -> None:
    """Gather scores of one dataset, in the order given."""
    names = [name for name, _ in entries]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise click.BadParameter(f"given twice: {', '.join(sorted(twice))}", param_hint="--entry")
    write_json(output, {name: _scores(path) for name, path in entries})


def _scores(path: Path) -> dict[str, Any]:
    """Read one entry, without its curves: they are for the report, the table is for people."""
    entry = read_json(path)
    if not isinstance(entry, dict) or not {"bbox", "segm"} & entry.keys():
        raise DataError(f"{path}: not what `cuvler evaluation` writes (bbox, segm)")
    return {name: value for name, value in entry.items() if name != "precision"}
