"""``cuvler view``: show a COCO json over its images."""

from pathlib import Path

import click

from cuvler.commands import options
from cuvler.extras import require_extra
from cuvler.files import atomic_path


@click.command("view")
@click.argument("file", metavar="FILE", type=options.EXISTING)
@options.image_root()
@options.ground_truth(
    "COCO json of the ground truth, drawn in a picture of its own; it can name the images of "
    "results.",
    required=False,
)
@options.listing(
    "The listing (.parquet) that results were made with, which names their images.", required=False
)
@options.num_images("Images to show, spread evenly over the file.", 24)
@click.option(
    "--seed", type=click.IntRange(0), help="Choose the images at random, differently by seed."
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="Choose among the images of this file name; * stands for any characters. Repeatable.",
)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    help="Smallest score that is shown.  [default: 0.3 for results, 0 for annotations]",
)
@options.max_pixels()
@options.allow_outside()
@options.output("The page to write.", Path("view.html"))
def command(
    file: Path,
    image_root: Path,
    ground_truth: Path | None,
    listing: Path | None,
    num_images: int,
    seed: int | None,
    names: tuple[str, ...],
    score_threshold: float | None,
    output: Path,
) -> None:
    """Show the masks of FILE over its images, as one page that needs no network.

    FILE is a COCO json (pseudo-masks, one shard or merged, ground truth, annotations, predictions
    of `cuvler predict`) or COCO results; the ground truth or the listing names the images of these.
    """
    require_extra("report")
    from cuvler.view import choose, make_page, read_content

    content = read_content(
        file, ground_truth=ground_truth, listing=listing, score_threshold=score_threshold
    )
    chosen = choose(content, num_images, names=names, seed=seed)
    page = make_page(content, chosen, image_root, ground_truth=ground_truth)
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    click.echo(f"{output}: {len(chosen)} of {len(content.images)} images")
