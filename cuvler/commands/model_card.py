"""``cuvler model-card``: write a trained detector's model card."""

from pathlib import Path

import click

from cuvler.commands import options


@click.command("model-card")
@options.detector("The folder that `cuvler detector` wrote.")
@options.named_paths(
    "--metrics", "DATASET", help="Output of `cuvler metrics` with the detector's scores. Repeat."
)
@options.titles()
def command(
    detector: Path, metrics: tuple[tuple[str, Path], ...], titles: tuple[tuple[str, str], ...]
) -> None:
    """Write README.md in a trained detector's folder, a model card in the hub's format.

    The training writes one with the scores that it knows; this one has those of --metrics.
    """
    from cuvler.detector.model_card import write_card
    from cuvler.errors import DataError
    from cuvler.evaluation.score_files import read_metrics

    name = detector.resolve().name
    scores = {}
    for dataset, path in metrics:
        entries = read_metrics(path)
        if name not in entries:
            raise DataError(f"{path}: has no scores of {name}, only of {', '.join(entries)}")
        scores[dataset] = entries[name]
    click.echo(write_card(detector, scores, dict(titles)))
