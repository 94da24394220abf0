"""``cuvler reproduction``: published files, fetched, scored and held against the papers."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.errors import ConfigError
from cuvler.extras import require_extra
from cuvler.files import atomic_path, read_json

logger = logging.getLogger(__name__)

_attempt = click.option(
    "--attempt", type=click.IntRange(0), default=0, help="Its number, written into the outcome."
)


@click.group("reproduction")
def command() -> None:
    """Score published detectors and pseudo-masks, and compare with the papers.

    These are the steps of `snakemake results/reproduction.md`.
    """


@command.command("fetch")
@click.argument("name")
@click.option("--url", help="Where to fetch it from, instead of the address that is known.")
@options.sha256("Refuse another file, with --url.")
@options.downloads("Where downloads are.")
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
    """Fetch an entry's file and try it; a failure is an outcome too.

    NAME is an entry's, as cuvler/reproduction/entries.yaml has it. The outcome is written to
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
@click.option("--after", type=Path, required=True, help="What the step before made.")
@options.output("What the command writes.")
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
    """Run COMMAND, another one of cuvler, unless the step before was skipped.

    Where it was, or the command fails, the reason is written in the place of its output. The
    outcome is written to OUTPUT.outcome.
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
    help="What `cuvler evaluation` wrote. Repeat, in the order of the rows.",
)
@click.option(
    "--skipped",
    "unfetched",
    multiple=True,
    type=options.named_text,
    metavar="ENTRY=REASON",
    help="An entry that is not scored, and why. Repeat.",
)
@click.option(
    "--missing",
    multiple=True,
    type=options.named_text,
    metavar="DATASET=REASON",
    help="A dataset that nothing is scored on, and why. Repeat.",
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
    """Lay published and measured figures side by side, and name what was skipped."""
    from cuvler.reproduction import entries, figures, skip_reason, to_markdown

    known, found, skipped = entries(), [], []
    for pair, path in scores:
        name, _, dataset = pair.partition("/")
        if reason := skip_reason(path):
            skipped.append((known[name], dataset, reason))
        else:
            found += figures(known[name], dataset, read_json(path))
    for name, reason in unfetched:
        skipped += [(known[name], dataset, reason) for dataset in known[name].datasets]
    page = to_markdown(found, skipped=skipped, missing=dict(missing), titles=dict(titles))
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
