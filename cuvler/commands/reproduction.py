"""``cuvler reproduction``: fetch and score published files, and compare with the papers."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.errors import ConfigError
from cuvler.extras import require_extra
from cuvler.files import atomic_path

logger = logging.getLogger(__name__)

_attempt = click.option(
    "--attempt",
    type=click.IntRange(0),
    default=0,
    help="Number of the attempt, recorded in the outcome.",
)


@click.group("reproduction")
def command() -> None:
    """Score published detectors and pseudo-masks, and compare with the papers.

    These are the steps of `snakemake results/reproduction.md`.
    """


@command.command("fetch")
@click.argument("name")
@click.option("--url", help="The URL to fetch from.  [default: the known one]")
@options.sha256("The expected SHA-256 of --url; another digest is an error.")
@options.downloads("Folder of downloads.")
@options.output("The link to the file to write.")
@_attempt
def fetch_command(
    name: str,
    url: str | None,
    sha256: str | None,
    folder: Path,
    output: Path,
    attempt: int,
) -> None:
    """Fetch an entry's file and try to load it; a failure is recorded as the outcome.

    NAME is an entry in cuvler/reproduction/entries.yaml. The outcome is written to
    OUTPUT.outcome.
    """
    from cuvler.reproduction import entries, fetch, run_step

    if name not in entries():
        raise ConfigError(f"{name}: no entry; known: {', '.join(entries())}")
    if entries()[name].detector_config:
        require_extra("detector")

    def step() -> None:
        fetch(entries()[name], folder, output, url=url, sha256=sha256)

    _report(run_step(step, output, attempt=attempt))


@command.command(
    "step", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--after", type=Path, required=True, help="Output of the previous step.")
@options.output("Output of the command.")
@_attempt
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@click.pass_context
def step_command(
    context: click.Context,
    after: Path,
    output: Path,
    attempt: int,
    words: tuple[str, ...],
) -> None:
    """Run COMMAND, another cuvler command, unless the previous step was skipped.

    If the previous step was skipped, or the command fails, the reason is written instead of the
    output. The outcome is written to OUTPUT.outcome.
    """
    from cuvler.reproduction import run_step

    root = context.find_root()
    assert isinstance(root.command, click.Group)
    main, program = root.command.main, root.info_name

    def step() -> None:
        main(list(words), prog_name=program, standalone_mode=False)

    _report(run_step(step, output, after=after, attempt=attempt))


def _report(reason: str | None) -> None:
    if reason is not None:
        logger.warning("skipped: %s", reason)


@command.command("table")
@options.named_paths(
    "--scores",
    "ENTRY/DATASET",
    help="Output of `cuvler evaluation`. Repeat, in the order of the rows.",
)
@click.option(
    "--skipped",
    "unfetched",
    multiple=True,
    type=options.named_text,
    metavar="ENTRY=REASON",
    help="An entry that is not scored, and the reason. Repeatable.",
)
@click.option(
    "--missing",
    multiple=True,
    type=options.named_text,
    metavar="DATASET=REASON",
    help="A dataset without scores, and the reason. Repeatable.",
)
@click.option(
    "--title",
    "titles",
    multiple=True,
    type=options.named_text,
    metavar="DATASET=TITLE",
    help="The dataset's name in the table.  [default: its own]",
)
@options.output("The Markdown to write.")
def table_command(
    scores: tuple[tuple[str, Path], ...],
    unfetched: tuple[tuple[str, str], ...],
    missing: tuple[tuple[str, str], ...],
    titles: tuple[tuple[str, str], ...],
    output: Path,
) -> None:
    """Write published and measured scores in one table, and list what was skipped."""
    from cuvler.evaluation.score_files import read_scores
    from cuvler.reproduction import entries, figures, skip_reason, to_markdown

    known, found, skipped = entries(), [], []
    for pair, path in scores:
        name, _, dataset = pair.partition("/")
        if reason := skip_reason(path):
            skipped.append((known[name], dataset, reason))
        else:
            found += figures(known[name], dataset, read_scores(path))
    for name, reason in unfetched:
        skipped += [(known[name], dataset, reason) for dataset in known[name].datasets]
    page = to_markdown(found, skipped=skipped, missing=dict(missing), titles=dict(titles))
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
