"""``cuvler datasets``: list the known datasets and their state."""

from pathlib import Path

import click

from cuvler.commands import options
from cuvler.config import read
from cuvler.datasets import MAX_DETECTIONS, Presence, presence


@click.command("datasets", cls=options.ConfigFilesCommand)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@options.configfiles()
def command(names: tuple[str, ...], configfiles: tuple[Path, ...]) -> None:
    """List the data sets known by name: what is scored, what is missing, where to get it.

    NAME is a data set; without any, all are listed.
    """
    settings = read(configfiles)
    found = presence(settings, names)
    width = max((len(one.entry.name) for one in found), default=0)
    for one in found:
        state = "missing" if one.missing else "here"
        click.echo(f"{one.entry.name:<{width}}  {state:<7}  {_describe(one)}")
        for path in one.missing:
            click.echo(f"{'':<{width}}  no {path}")
        if one.missing and one.entry.source:
            click.echo(f"{'':<{width}}  get it from {one.entry.source}")
    here = sum(not one.missing for one in found)
    click.echo(f"\n{here} of {len(found)} are here; relative paths start at ", nl=False)
    click.echo(f"{settings.datasets_root} (datasets_root)")


def _describe(one: Presence) -> str:
    entry = one.entry
    if entry.ground_truth is None:
        return f"{entry.title}: images alone"
    scored = "boxes and masks" if entry.masks else "boxes"
    limit = entry.max_detections or MAX_DETECTIONS
    predicted = entry.detections_per_image or limit
    counted = f"{limit}" if predicted == limit else f"{limit} of {predicted}"
    parts = [f"{entry.title}: {scored}, {counted} detections an image"]
    if entry.made_from:
        parts.append(f"ground truth from {entry.made_from.format}")
        parts.append("made" if one.made else "not made yet")
    return ", ".join(parts)
