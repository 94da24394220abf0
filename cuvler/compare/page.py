"""The comparison as an HTML page: tables, and the images with the largest differences."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from cuvler.compare.scores import Comparison, Score
from cuvler.listing import ListedImage
from cuvler.report.cards import Card, Layer, make_card
from cuvler.report.formats import change, percent
from cuvler.report.records import best_records, coco_images
from cuvler.report.templates import render

Named = tuple[str, Path]


def make_page(
    comparison: Comparison,
    ground_truth: Path,
    results: Sequence[Named],
    image_root: Path,
    *,
    images: int = 8,
    score_threshold: float = 0.0,
) -> str:
    """Return a self-contained HTML page.

    Args:
        comparison: the result of :func:`cuvler.compare.compare`.
        ground_truth: a COCO json.
        results: names and files of A and B.
        image_root: the image root.
        images: number of images shown where A is better, and where B is better.
        score_threshold: detections with a lower score are not drawn.

    Raises:
        DataError: a file is damaged, or a mask's size differs from its image's.
    """
    better = [image for image, score in comparison.images.items() if score.change > 0][:images]
    worse = [image for image, score in comparison.images.items() if score.change < 0][:images]
    shown = [*better, *worse]
    listed = coco_images(ground_truth)
    sizes = {number: listed[number].size for number in shown}
    layers = [Layer("ground truth", "objects", ground_truth, best_records(ground_truth, sizes))]
    layers += [
        Layer(name, "detections", path, best_records(path, sizes, score_threshold=score_threshold))
        for name, path in results
    ]
    cards = [
        [
            _card(image_root, listed[number], score, layers)
            for number, score in comparison.images.items()
            if number in numbers
        ]
        for numbers in (worse, better)
    ]
    names = [name for name, _ in results]
    return render(
        "cuvler.compare",
        names=names,
        scored="Masks" if comparison.iou_type == "segm" else "Boxes",
        sizes=comparison.sizes,
        counts=counts(comparison),
        sides=list(zip(names, cards, strict=True)),
        css=resources.files("cuvler.report").joinpath("page.css").read_text(encoding="utf-8"),
    )


def _card(image_root: Path, image: ListedImage, score: Score, layers: Sequence[Layer]) -> Card:
    first, second = (percent(value) for value in score.ap)
    things = "1 object" if score.objects == 1 else f"{score.objects} objects"
    note = f"AP {first} of A, {second} of B ({change(score.change)}), {things}"
    return make_card(image_root, image, layers, {}, note)


def counts(comparison: Comparison) -> tuple[int, int, int]:
    """Return the numbers of images where A is better, B is better, and both are equal."""
    changes = [score.change for score in comparison.images.values()]
    first, second = sum(one < 0 for one in changes), sum(one > 0 for one in changes)
    return first, second, len(changes) - first - second
