"""``cuvler table``: write a table of all detectors on all datasets."""

from pathlib import Path

import click

from cuvler.commands import options
from cuvler.evaluation.score_files import read_metrics
from cuvler.evaluation.table import tables, to_csv, to_markdown
from cuvler.files import atomic_path


@click.command("table")
@options.named_paths(
    "--metrics",
    "DATASET",
    required=True,
    help="Output of `cuvler metrics`. Repeat, in the order of the columns.",
)
@options.titles()
@click.option("--csv", "csv_path", type=Path, help="CSV file to write, with unrounded scores.")
@click.option(
    "--markdown", "markdown_path", type=Path, help="Markdown file to write, in the papers' layout."
)
def command(
    metrics: tuple[tuple[str, Path], ...],
    titles: tuple[tuple[str, str], ...],
    csv_path: Path | None,
    markdown_path: Path | None,
) -> None:
    """Write a table of AP50 and AR100 of all detectors on all datasets, with published scores.

    Without --csv and --markdown, the Markdown is printed.
    """
    found = tables({name: read_metrics(path) for name, path in metrics})
    markdown = to_markdown(found, dict(titles))
    for path, text in ((csv_path, to_csv(found, dict(titles))), (markdown_path, markdown)):
        if path:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if not (csv_path or markdown_path):
        click.echo(markdown, nl=False)
