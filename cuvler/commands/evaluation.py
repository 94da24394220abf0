"""``cuvler evaluation``: score masks against ground truth."""

from pathlib import Path

import click

from cuvler.evaluation import evaluate_all
from cuvler.evaluation.coco_files import IouType
from cuvler.files import write_json


@click.command("evaluation")
@click.option(
    "--ground-truth",
    required=True,
    type=click.Path(path_type=Path),
    help="COCO json of the objects.",
)
@click.option(
    "--results",
    required=True,
    type=click.Path(path_type=Path),
    help="COCO results, or COCO annotations (pseudo-masks); without any score, all count as 1.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Json of metrics.")
@click.option(
    "--iou-type",
    "iou_types",
    multiple=True,
    type=click.Choice(["bbox", "segm"]),
    help="Repeat for several.  [default: bbox, and segm if both files have masks]",
)
@click.option(
    "--class-agnostic/--per-category",
    default=True,
    show_default=True,
    help="Take every category as one, or score each and average.",
)
@click.option(
    "--max-detections",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Detections of an image that count for AP (LVIS's own evaluation: 300).",
)
def command(
    ground_truth: Path,
    results: Path,
    output: Path,
    iou_types: tuple[IouType, ...],
    class_agnostic: bool,
    max_detections: int,
) -> None:
    """Score detections or pseudo-masks with COCO's metrics, in percent."""
    scores = evaluate_all(
        ground_truth,
        results,
        iou_types=iou_types,
        class_agnostic=class_agnostic,
        max_detections=max_detections,
    )
    write_json(output, scores)
