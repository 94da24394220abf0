"""``cuvler report``: make the report page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cuvler.commands.named_path import named_path
from cuvler.extras import require_extra
from cuvler.files import atomic_path

Named = tuple[tuple[str, Path], ...]
_EXISTING = click.Path(exists=True, path_type=Path)


def _files(option: str, name: str, help_text: str) -> Callable[[Any], Any]:
    return click.option(
        option, multiple=True, type=named_path, metavar=f"{name}=PATH", help=help_text
    )


def _count(value: str) -> tuple[str, int]:
    rule, equals, count = value.partition("=")
    if not (rule and equals and count.isdecimal()):
        raise click.BadParameter(f"{value!r} is not RULE=N")
    return rule, int(count)


@click.command("report")
@click.option("--output", required=True, type=Path, help="The page to write.")
@click.option("--title", default="cuvler report", show_default=True)
@_files("--metrics", "DATASET", "What `cuvler metrics` wrote.")
@_files("--evaluation", "DATASET/ENTRY", "What `cuvler evaluation` wrote, for its curves.")
@_files("--fine-tuning", "DATASET", "Metrics of detectors that learned classes.")
@_files("--image-root", "DATASET", "Folder of the images; gives the dataset a gallery.")
@_files("--ground-truth", "DATASET", "COCO json of the objects.")
@_files("--eigenvectors", "DATASET/METHOD/BACKBONE", "Folder of shards.")
@_files("--annotations", "DATASET/METHOD", "COCO json of pseudo-masks or self-training.")
@_files("--predictions", "DATASET/DETECTOR", "COCO results.")
@_files("--detector", "DETECTOR", "Folder of a detector, for its losses.")
@click.option("--benchmarks", type=_EXISTING, help="Folder of Snakemake's benchmark files.")
@click.option(
    "--gpus",
    multiple=True,
    type=_count,
    metavar="RULE=N",
    help="GPUs that each job of a rule held, for the GPU-hours.",
)
@click.option("--config", default="", help="The run's settings as text, shown as they are.")
@click.option(
    "--images",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Images in a gallery.",
)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Detections under this score are not drawn.",
)
def command(
    output: Path,
    title: str,
    metrics: Named,
    evaluation: Named,
    fine_tuning: Named,
    image_root: Named,
    ground_truth: Named,
    eigenvectors: Named,
    annotations: Named,
    predictions: Named,
    detector: Named,
    benchmarks: Path | None,
    gpus: tuple[tuple[str, int], ...],
    config: str,
    images: int,
    score_threshold: float,
) -> None:
    """Make one page of tables, galleries and curves, which needs no other file.

    Options that take NAME=PATH are repeated, in the order the page is to have. What is not
    given is left out.
    """
    require_extra("report")
    from cuvler.report import Inputs, make_report

    inputs = Inputs(
        metrics=dict(metrics),
        evaluations=_by_names(evaluation, "--evaluation", 2),
        fine_tuning=dict(fine_tuning),
        image_roots=dict(image_root),
        ground_truth=dict(ground_truth),
        eigenvectors=_by_names(eigenvectors, "--eigenvectors", 3),
        annotations=_by_names(annotations, "--annotations", 2),
        predictions=_by_names(predictions, "--predictions", 2),
        detectors=dict(detector),
        benchmarks=benchmarks,
        gpus=dict(gpus),
        config=config,
        images=images,
        score_threshold=score_threshold,
    )
    page = make_report(inputs, title=title)
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _by_names(files: Named, option: str, count: int) -> dict[Any, Path]:
    """Split names such as DATASET/METHOD at the slashes."""
    found = {}
    for name, path in files:
        parts = tuple(name.split("/"))
        if len(parts) != count or not all(parts):
            wanted = "DATASET/METHOD/BACKBONE" if count == 3 else "DATASET/NAME"
            raise click.BadParameter(f"{name!r} is not {wanted}", param_hint=option)
        found[parts] = path
    return found
