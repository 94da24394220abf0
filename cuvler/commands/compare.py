"""``cuvler compare``: where two result files differ most."""

from pathlib import Path

import click

from cuvler.evaluation.coco_files import IouType
from cuvler.extras import require_extra
from cuvler.files import atomic_path

_EXISTING = click.Path(exists=True, path_type=Path)


@click.command("compare")
@click.argument("first", metavar="A.json", type=_EXISTING)
@click.argument("second", metavar="B.json", type=_EXISTING)
@click.option("--ground-truth", required=True, type=_EXISTING, help="COCO json of the objects.")
@click.option("--image-root", type=_EXISTING, help="Folder of the images, for a page of them.")
@click.option(
    "--output",
    type=Path,
    default=Path("compare.html"),
    show_default=True,
    help="The page to write, where --image-root is given.",
)
@click.option(
    "--iou-type",
    type=click.Choice(["bbox", "segm"]),
    help="Boxes or masks.  [default: masks if all files have them]",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Images to show where A is better, and as many where B is.",
)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Detections under this score are not drawn.",
)
@click.option("--max-detections", type=click.IntRange(1), default=100, show_default=True)
def command(
    first: Path,
    second: Path,
    ground_truth: Path,
    image_root: Path | None,
    output: Path,
    iou_type: IouType | None,
    images: int,
    score_threshold: float,
    max_detections: int,
) -> None:
    """Tell on which sizes and images two result files differ most.

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
    click.echo("those that differ most, with the number of their objects:")
    for score in list(found.images.values())[:images]:
        if score.change:
            click.echo(f"{_line(score.ap)}  {score.name} ({score.objects})")
    if image_root:
        page = make_page(
            found,
            ground_truth,
            list(zip(names, (first, second), strict=True)),
            image_root,
            images=images,
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
    """Name two files by the part of their paths, from the end, that tells them apart."""
    parts = [path.with_suffix("").absolute().parts for path in (first, second)]
    pairs = zip(*map(reversed, parts), strict=False)
    return next(((one, other) for one, other in pairs if one != other), ("A", "B"))
