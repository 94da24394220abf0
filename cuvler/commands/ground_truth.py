"""``cuvler ground-truth``: make class-agnostic ground truth from official annotations."""

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
    help="An official annotation file, or a folder of them. Repeat for several.",
)
@options.image_root()
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    default="coco",
    show_default=True,
    help="coco is also LVIS's, Objects365's and UVO's frames'; youtube_vis UVO's videos'.",
)
@click.option(
    "--image-list",
    "image_lists",
    multiple=True,
    type=Path,
    help="Keep the images named in this text file, one a line.  [default: all]",
)
@click.option(
    "--extra-annotations",
    multiple=True,
    type=Path,
    help="A COCO json of objects on the same images that the official files leave out.",
)
@options.image_ids(
    "order",
    "digits",
    help="Image ids where the format has none: counted, or the digits of the file's name.",
)
@click.option(
    "--masks/--boxes-only",
    default=True,
    show_default=True,
    help="Keep masks, or write boxes alone, which are then all that is scored.",
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
    """Make class-agnostic ground truth from official annotation files.

    Categories are folded into one, and ids stay as they are. What a data set does not count
    (crowds, difficult objects, groups, unlabelled regions) is kept as COCO's crowds, which
    evaluation neither asks for nor holds against a detector.
    """
    missing = [
        path
        for path in [image_root, *annotations, *image_lists, *extra_annotations]
        if not path.exists()
    ]
    if dataset and missing:
        raise DataError(
            f"datasets.{dataset}: there is no {missing[0]} (looked in {Path.cwd()}); `cuvler "
            f"datasets {dataset}` says where to get it. Put it there, or set datasets.{dataset} "
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
