"""``cuvler export``: write masks in the format of another tool."""

from pathlib import Path

import click

from cuvler.commands import options
from cuvler.errors import DataError
from cuvler.files import require_free

# Of cuvler.export.FORMATS, which is slow to import; and whether the output is a folder.
FORMATS = {
    "coco-polygons": False,
    "coco-rle": False,
    "yolo": True,
    "label-studio": False,
    "cvat": False,
    "label-masks": True,
    "masks": True,
    "csv": False,
    "parquet": False,
}


@click.command("export")
@click.argument("file", metavar="FILE", type=options.EXISTING)
@click.option(
    "--format",
    "name",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="yolo, label-masks and masks are folders; csv and parquet are tables of boxes.",
)
@options.ground_truth("COCO json that names the images and classes of results.", required=False)
@options.listing(
    "The listing (.parquet) that results were made with, which names their images.", required=False
)
@options.score_threshold(0.0, "Smallest score; records without one are written, too.")
@options.detections_per_image("Most records of an image, those with the highest scores.")
@click.option(
    "--category", "categories", multiple=True, help="Only this class, by its name. Repeatable."
)
@options.output("The file to write; or the folder, which must be new or empty.")
def command(
    file: Path,
    name: str,
    ground_truth: Path | None,
    listing: Path | None,
    score_threshold: float,
    detections_per_image: int | None,
    categories: tuple[str, ...],
    output: Path,
) -> None:
    """Write the masks of FILE in the format of another tool.

    FILE is a COCO json (pseudo-masks, annotations, ground truth, predictions of `cuvler predict`)
    or COCO results; the ground truth or the listing names the images of these.
    """
    if FORMATS[name]:
        require_free(output)
    elif output.is_dir():
        raise DataError(f"{output}: is a folder; {name} is a file", parameter="output")
    from cuvler.export import Source, write

    source = Source(
        file,
        ground_truth=ground_truth,
        listing=listing,
        score_threshold=score_threshold,
        detections_per_image=detections_per_image,
        categories=categories,
        folder=_existing(output.absolute().parent),
    )
    tally = write(source, name, output)
    if source.left_out:
        tally.left_out["images that could not be used"] = source.left_out
    click.echo(f"{output}: " + "\n".join(tally.lines()))


def _existing(folder: Path) -> Path:
    """Return the nearest folder that exists: a temporary file needs room where the output does."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
