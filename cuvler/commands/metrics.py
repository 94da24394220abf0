"""``cuvler metrics``: collect a dataset's scores in one file."""

from pathlib import Path
from typing import Any

import click

from cuvler.commands import options
from cuvler.files import write_json


@click.command("metrics")
@options.named_paths(
    "--entry",
    "NAME",
    "entries",
    required=True,
    help="An entry's name and its file from `cuvler evaluation`. Repeat, in order.",
)
@options.output("The json of all entries to write.")
def command(entries: tuple[tuple[str, Path], ...], output: Path) -> None:
    """Collect the scores of one dataset, in the given order."""
    names = [name for name, _ in entries]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise click.BadParameter(f"given twice: {', '.join(sorted(twice))}", param_hint="--entry")
    write_json(output, {name: _scores(path) for name, path in entries})


def _scores(path: Path) -> dict[str, Any]:
    """Read one entry, without its precision curves, which only the report uses."""
    from cuvler.evaluation.score_files import read_scores

    return {name: value for name, value in read_scores(path).items() if name != "precision"}
