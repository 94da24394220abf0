"""``cuvler ground-truth``: convert official annotations to class-agnostic ground truth."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.errors import DataError
from cuvler.ground_truth import FORMATS, make_ground_truth
from cuvler.ground_truth.source_records import Ids

logger = logging.getLogger(__name__)


@click.command("ground-truth")
@options.dataset(required=False)
@click.option(
    "--annotations",
    multiple=True,
    required=True,
    type=Path,
    help="An official annotation file, or a folder of them. Repeatable.",
)
@options.image_root()
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    default="coco",
    show_default=True,
    help="Use coco for LVIS, Objects365 and UVO's frames, youtube_vis for UVO's videos.",
)
@click.option(
    "--image-list",
    "image_lists",
    multiple=True,
    type=Path,
    help="Keep only the images in this text file, one name per line.  [default: all]",
)
@click.option(
    "--extra-annotations",
    multiple=True,
    type=Path,
    help="A COCO json of further objects on the same images.",
)
@options.image_ids(
    "order",
    "digits",
    help="Image ids if the format has none: in order, or the digits of the file name.",
)
@click.option(
    "--masks/--boxes-only",
    default=True,
    show_default=True,
    help="Write masks and boxes, or boxes only; then only boxes are scored.",
)
@options.output("The COCO json to write.")
def command(
    dataset: str | None,
    annotations: tuple[Path, ...],
    image_root: Path,
    format_: str,
    image_lists: tuple[Path, ...],
    extra_annotations: tuple[Path, ...],
    ids: Ids,
    masks: bool,
    output: Path,
) -> None:
    """Convert official annotation files to class-agnostic ground truth.

    Categories are merged into one; ids are kept. Objects that a dataset ignores (crowds, difficult
    objects, groups, unlabelled regions) become COCO crowds: in evaluation they are neither misses
    nor false positives.
    """
    missing = [
        path
        for path in [image_root, *annotations, *image_lists, *extra_annotations]
        if not path.exists()
    ]
    if dataset and missing:
        raise DataError(
            f"datasets.{dataset}: there is no {missing[0]} (looked in {Path.cwd()}); `cuvler "
            f"datasets {dataset}` has its source. Put it there, or set datasets.{dataset} "
            "or datasets_root in your config to where it is"
        )
    counts = make_ground_truth(
        output,
        annotations,
        image_root,
        format=format_,
        image_lists=image_lists,
        extra_annotations=extra_annotations,
        ids=ids,
        masks=masks,
    )
    logger.info(
        "%s: %d objects (%d of them ignored) on %d images",
        output,
        counts.objects,
        counts.ignored,
        counts.images,
    )
