"""``cuvler report``: write the report page."""

from pathlib import Path
from typing import Any

import click

from cuvler.commands import options
from cuvler.extras import require_extra
from cuvler.files import atomic_path


def _count(value: str) -> tuple[str, int]:
    rule, equals, count = value.partition("=")
    if not (rule and equals and count.isdecimal()):
        raise click.BadParameter(f"{value!r} is not RULE=N")
    return rule, int(count)


@click.command("report")
@options.output("The page to write.")
@click.option("--title", default="cuvler report", show_default=True, help="The title of the page.")
@options.named_paths("--metrics", "DATASET", help="Output of `cuvler metrics`.")
@options.named_paths(
    "--evaluation", "DATASET/ENTRY", help="Output of `cuvler evaluation`, for its curves."
)
@options.named_paths("--fine-tuning", "DATASET", help="Metrics of fine-tuned detectors.")
@options.named_paths(
    "--image-root", "DATASET", help="Folder of the images; adds a gallery of the dataset."
)
@options.named_paths("--ground-truth", "DATASET", help="COCO json of the ground truth.")
@options.named_paths(
    "--listing",
    "DATASET",
    help="Output of `cuvler images`: only the shards of the images shown are opened.",
)
@options.named_paths("--eigenvectors", "DATASET/METHOD/BACKBONE", help="Folder of shards.")
@options.named_paths(
    "--annotations", "DATASET/METHOD", help="COCO json of pseudo-masks or self-training."
)
@options.named_paths("--predictions", "DATASET/DETECTOR", help="COCO results.")
@options.named_paths("--detector", "DETECTOR", help="Folder of a detector, for its losses.")
@click.option("--benchmarks", type=options.EXISTING, help="Folder of Snakemake's benchmark files.")
@click.option(
    "--gpus",
    multiple=True,
    type=_count,
    metavar="RULE=N",
    help="Number of GPUs of a rule's jobs, for the GPU-hours.",
)
@click.option("--config", default="", help="The run's settings as text, shown unchanged.")
@options.max_pixels()
@options.allow_outside()
@options.num_images("Images in a gallery.")
@options.score_threshold(0.3, "Smallest score of a detection that is drawn.")
def command(
    output: Path,
    title: str,
    metrics: options.Named,
    evaluation: options.Named,
    fine_tuning: options.Named,
    image_root: options.Named,
    ground_truth: options.Named,
    listing: options.Named,
    eigenvectors: options.Named,
    annotations: options.Named,
    predictions: options.Named,
    detector: options.Named,
    benchmarks: Path | None,
    gpus: tuple[tuple[str, int], ...],
    config: str,
    num_images: int,
    score_threshold: float,
) -> None:
    """Write one self-contained page of tables, galleries and curves.

    Options with NAME=PATH are repeatable; their order is the order on the page. Sections without
    data are omitted.
    """
    require_extra("report")
    from cuvler.report import Inputs, make_report

    inputs = Inputs(
        metrics=dict(metrics),
        evaluations=_by_names(evaluation, "--evaluation", 2),
        fine_tuning=dict(fine_tuning),
        image_roots=dict(image_root),
        ground_truth=dict(ground_truth),
        listings=dict(listing),
        eigenvectors=_by_names(eigenvectors, "--eigenvectors", 3),
        annotations=_by_names(annotations, "--annotations", 2),
        predictions=_by_names(predictions, "--predictions", 2),
        detectors=dict(detector),
        benchmarks=benchmarks,
        gpus=dict(gpus),
        config=config,
        images=num_images,
        score_threshold=score_threshold,
    )
    page = make_report(inputs, title=title)
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _by_names(files: options.Named, option: str, count: int) -> dict[Any, Path]:
    """Split names such as DATASET/METHOD at the slashes."""
    found = {}
    for name, path in files:
        parts = tuple(name.split("/"))
        if len(parts) != count or not all(parts):
            wanted = "DATASET/METHOD/BACKBONE" if count == 3 else "DATASET/NAME"
            raise click.BadParameter(f"{name!r} is not {wanted}", param_hint=option)
        found[parts] = path
    return found
