"""``cuvler evaluation``: score masks against ground truth."""

from pathlib import Path

import click

from cuvler.commands import options
from cuvler.evaluation import evaluate_all
from cuvler.evaluation.compact import IouType
from cuvler.files import write_json


@click.command("evaluation")
@options.ground_truth()
@click.option(
    "--results",
    required=True,
    type=Path,
    help="COCO results, or COCO annotations (pseudo-masks). Without scores, each is 1.",
)
@options.output("The json of metrics to write.")
@click.option(
    "--iou-type",
    "iou_types",
    multiple=True,
    type=click.Choice(["bbox", "segm"]),
    help="Boxes or masks; repeat for both.  [default: bbox, and segm if both files have masks]",
)
@click.option(
    "--class-agnostic/--per-category",
    default=True,
    show_default=True,
    help="Merge all categories into one, or average over the categories.",
)
@options.max_detections()
def command(
    ground_truth: Path,
    results: Path,
    output: Path,
    iou_types: tuple[IouType, ...],
    class_agnostic: bool,
    max_detections: int,
) -> None:
    """Compute COCO metrics, in percent, of detections or pseudo-masks."""
    output.parent.mkdir(parents=True, exist_ok=True)
    scores = evaluate_all(
        ground_truth,
        results,
        iou_types=iou_types,
        class_agnostic=class_agnostic,
        max_detections=max_detections,
        # Not the system's folder: a node's local disk may be too small.
        folder=output.parent,
    )
    write_json(output, scores)
