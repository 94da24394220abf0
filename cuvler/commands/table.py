"""``cuvler table``: one table over all detectors and datasets."""

from pathlib import Path
from typing import Any

import click

from cuvler.commands.named_path import named_path
from cuvler.errors import DataError
from cuvler.evaluation.table import tables, to_csv, to_markdown
from cuvler.files import atomic_path, read_json


def _named(value: str) -> tuple[str, str]:
    name, equals, title = value.partition("=")
    if not (name and equals and title):
        raise click.BadParameter(f"{value!r} is not NAME=TITLE")
    return name, title


@click.command("table")
@click.option(
    "--metrics",
    required=True,
    multiple=True,
    type=named_path,
    metavar="DATASET=PATH",
    help="What `cuvler metrics` wrote. Repeat, in the order of the columns.",
)
@click.option(
    "--title",
    "titles",
    multiple=True,
    type=_named,
    metavar="DATASET=TITLE",
    help="The dataset's name in the heading.  [default: its own]",
)
@click.option("--csv", "csv_path", type=Path, help="Table to write, unrounded.")
@click.option("--markdown", "markdown_path", type=Path, help="Table to write, as in the papers.")
def command(
    metrics: tuple[tuple[str, Path], ...],
    titles: tuple[tuple[str, str], ...],
    csv_path: Path | None,
    markdown_path: Path | None,
) -> None:
    """Lay out AP50 and AR100 of all detectors on all datasets, beside published scores.

    Without --csv and --markdown, the Markdown is shown.
    """
    found = tables({name: _read(path) for name, path in metrics})
    markdown = to_markdown(found, dict(titles))
    for path, text in ((csv_path, to_csv(found, dict(titles))), (markdown_path, markdown)):
        if path:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if not (csv_path or markdown_path):
        click.echo(markdown, nl=False)


def _read(path: Path) -> dict[str, Any]:
    entries = read_json(path)
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise DataError(f"{path}: not what `cuvler metrics` writes (entry -> bbox, segm)")
    return entries
