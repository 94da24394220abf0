"""``cuvler plan``: estimate the time and disk space of a run before it starts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.commands.status import summary
from cuvler.config import Settings, read
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.errors import ConfigError
from cuvler.extras import require_extra
from cuvler.layout import EIGENVECTORS, LISTING, DetectorName
from cuvler.listing import read_listing
from cuvler.plan import IMAGES, Planner, Row, Training
from cuvler.rates import Rate, known_rates
from cuvler.status import read_plan

_HEADER = ("stage", "jobs", "images", "GPU-hours", "CPU-hours", "hours a job", "GB", "files")


def _named_number(value: str) -> tuple[str, float]:
    name, _, number = value.rpartition("=")
    try:
        parsed = float(number)
    except ValueError:
        parsed = 0
    if not name or parsed <= 0:
        raise click.BadParameter(f"{value!r} is not NAME=NUMBER")
    return name, parsed


def _images(value: str) -> tuple[str, float]:
    """A number alone is that of the dataset of ``train``."""
    return ("", float(value)) if value.isdigit() else _named_number(value)


@click.command("plan", cls=options.ConfigFilesCommand)
@options.configfiles()
@click.option(
    "--images",
    "images",
    multiple=True,
    type=_images,
    metavar="[DATASET=]NUMBER",
    help="Images of a dataset (of `train` without a name) that is not listed yet.",
)
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=_named_number,
    metavar="NAME=NUMBER",
    help="Images a second of one GPU or core, measured on yours; the names are under the table.",
)
@click.argument("targets", nargs=-1)
def command(
    configfiles: tuple[Path, ...],
    images: tuple[tuple[str, float], ...],
    rates: tuple[tuple[str, float], ...],
    targets: tuple[str, ...],
) -> None:
    """Show what a run will take: jobs, hours, bytes and files, stage by stage.

    TARGETS are those of Snakemake, by default all. Images are counted where a dataset is listed
    already; sizes of well-known datasets are known.
    """
    require_extra("workflow")
    settings = read(configfiles)
    words = ["--configfile", *map(str, configfiles)] if configfiles else []
    found = list(read_plan(summary([*targets, *words])))
    jobs = [(rule, output) for rule, output, _ in found]
    planned = [LISTING.names(output)["dataset"] for rule, output in jobs if rule == LISTING.rule]
    given = {name or settings.train: int(number) for name, number in images}
    planner = Planner(
        settings=settings,
        sizes={name: _size(settings, name, given) for name in planned},
        rates=known_rates(),
        training=_training(settings),
    )
    _require_known("--images", given, planned)
    measured = planner.measured((rule, output) for rule, output, done in found if done)
    stated = {name: Rate(value, "given") for name, value in rates}
    planner = replace(planner, rates={**planner.rates, **measured, **stated})
    rows = planner.rows(jobs)
    _require_known("--rate", dict(rates), planner.used)
    click.echo(_table(rows))
    click.echo("\nimages: " + ", ".join(f"{name} {n:,}" for name, n in planner.sizes.items()))
    if any(rule in ("detector", "fine_tuning") for rule, _ in jobs):
        click.echo(f"training: {_machines(settings)}; GPU-hours are the sum of all")
    click.echo("hours a job: of the longest, on all its GPUs, or on one core")
    for line in _backbones(settings, jobs):
        click.echo(line)
    click.echo("rates, images a second of one device (--rate NAME=NUMBER):")
    for name in sorted(planner.used):
        rate = planner.rates[name]
        click.echo(f"  {name:<24} {rate.value:>8.4g}  {rate.source}")


def _machines(settings: Settings) -> str:
    nodes, num_gpus = settings.detector.nodes, settings.detector.num_gpus
    device = f"{num_gpus} GPU{'s' if num_gpus != 1 else ''}" if num_gpus else "the CPU"
    return f"{nodes} nodes, each with {device}" if nodes > 1 else device


def _backbones(settings: Settings, jobs: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """Give a line for each backbone in the plan, with what its eigenvectors will be made with."""
    has_graph: dict[str, bool] = {}
    for names in (EIGENVECTORS.names(path) for rule, path in jobs if rule == "eigenvectors"):
        name = names["backbone"]
        need = settings.pseudo_masks.method(names["method"]).needs()[name]
        has_graph[name] = has_graph.get(name, False) or need.has_graph
    if has_graph:
        yield "backbones:"
    for name in has_graph:
        spec = backbone_spec(name, settings.eigenvectors.definitions)
        graph = settings.eigenvectors.graph(name) if has_graph[name] else {}
        values = "".join(f", {key} {value:g}" for key, value in graph.items())
        yield f"  {name:<24} {spec.feature} at {spec.size} pixels{values}"


def _require_known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise an error for names that are not in this plan."""
    if unknown := set(given) - set(known):
        names = ", ".join(sorted(known))
        raise click.BadParameter(
            f"{', '.join(sorted(unknown))}: not in this plan, which has {names}", param_hint=option
        )


def _size(settings: Settings, dataset: str, given: Mapping[str, int]) -> int:
    listing = LISTING.under(settings.results, dataset=dataset)
    if listing.exists():
        return len(read_listing(listing))
    size = given.get(dataset, IMAGES.get(dataset))
    if size is None:
        raise ConfigError(f"dataset {dataset}: not listed yet; say --images {dataset}=NUMBER")
    return size


def _training(settings: Settings) -> Callable[[DetectorName], Training]:
    """Give a function that finds a detector's schedule."""

    def find(detector: DetectorName) -> Training:
        from cuvler.detector.config import load_detector_config

        section = settings.detector if detector.percent is None else settings.fine_tuning
        opts = [str(value) for value in section.opts]
        cfg = load_detector_config(settings.detector_config(detector), overrides=opts)
        return Training(cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH)

    return find


def _table(rows: list[Row]) -> str:
    total = Row("all")
    for row in rows:
        for name in ("jobs", "gpu_hours", "cpu_hours", "size", "files"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
        total.longest = max(total.longest, row.longest)
    lines = [_HEADER, *(_cells(row) for row in [*rows, total])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    hours = [f"{hours:,.1f}" if hours else "" for hours in (row.gpu_hours, row.cpu_hours)]
    hours.append(f"{row.longest:,.{1 if row.longest >= 1 else 3}f}" if row.longest else "")
    images = f"{round(row.images):,}" if row.images else ""
    size = f"{row.size / 1e9:,.2f}" if row.size else ""
    return row.stage, f"{row.jobs:,}", images, *hours, size, f"{row.files:,}"
