"""``cuvler compare``: show where two result files differ most."""

from pathlib import Path

import click

from cuvler.commands import options
from cuvler.evaluation.compact import IouType
from cuvler.extras import require_extra
from cuvler.files import atomic_path
from cuvler.logs import printable


@click.command("compare")
@click.argument("first", metavar="A.json", type=options.EXISTING)
@click.argument("second", metavar="B.json", type=options.EXISTING)
@options.ground_truth()
@options.image_root("The folder of the images; needed for the page.", required=False)
@options.output("The page to write, if --image-root is given.", Path("compare.html"))
@click.option(
    "--iou-type",
    type=click.Choice(["bbox", "segm"]),
    help="Boxes or masks.  [default: masks if all files have them]",
)
@options.max_pixels()
@options.allow_outside()
@options.num_images("Images to show where A is better, and the same number where B is.")
@options.score_threshold(0.3, "Smallest score of a detection that is drawn.")
@options.max_detections()
def command(
    first: Path,
    second: Path,
    ground_truth: Path,
    image_root: Path | None,
    output: Path,
    iou_type: IouType | None,
    num_images: int,
    score_threshold: float,
    max_detections: int,
) -> None:
    """Show on which object sizes and images two result files differ most.

    A and B are COCO results, or COCO annotations with scores (pseudo-masks).
    """
    require_extra("report")
    from cuvler.compare import compare
    from cuvler.compare.page import counts, make_page

    found = compare(ground_truth, first, second, iou_type=iou_type, max_detections=max_detections)
    names = _names(first, second)
    scored = "masks" if found.iou_type == "segm" else "boxes"
    click.echo(f"A {names[0]}\nB {names[1]}\n\n{scored:<8} objects    AP A   AP B  difference")
    for score in found.sizes:
        click.echo(f"{score.name:<8} {score.objects:>7}  {_line(score.ap)}")
    better = counts(found)
    click.echo(f"\nA is better on {better[0]} images, B on {better[1]}, neither on {better[2]}")
    click.echo("images with the largest differences, with their number of objects:")
    for score in list(found.images.values())[:num_images]:
        if score.change:
            click.echo(f"{_line(score.ap)}  {printable(score.name)} ({score.objects})")
    if image_root:
        page = make_page(
            found,
            ground_truth,
            list(zip(names, (first, second), strict=True)),
            image_root,
            images=num_images,
            score_threshold=score_threshold,
        )
        with atomic_path(output) as temporary:
            temporary.write_text(page, encoding="utf-8")
        click.echo(f"\n{output}: the images that differ most")


def _line(pair: tuple[float | None, float | None]) -> str:
    before, after = pair
    if before is None or after is None:
        return f"{'-':>6} {'-':>6} {'-':>7}"
    return f"{before:>6.1f} {after:>6.1f} {after - before:>+7.1f}"


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Return names for two files: the last parts of their paths that differ."""
    parts = [path.with_suffix("").absolute().parts for path in (first, second)]
    pairs = zip(*map(reversed, parts), strict=False)
    return next(((one, other) for one, other in pairs if one != other), ("A", "B"))
