"""The page: cards with an image, the file's masks over it, and the ground truth's."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from cuvler.coco import Annotation
from cuvler.errors import DataError
from cuvler.listing import ListedImage
from cuvler.report.cards import Card, Layer, make_card
from cuvler.report.records import best_records
from cuvler.report.templates import render
from cuvler.view.content import Content

logger = logging.getLogger(__name__)

_CLASSES = 4  # Classes named on a card.


def make_page(
    content: Content,
    chosen: Mapping[int, ListedImage],
    image_root: Path,
    *,
    ground_truth: Path | None = None,
) -> str:
    """Return a self-contained HTML page; the same files give the same bytes.

    Args:
        content: the result of :func:`cuvler.view.read_content`.
        chosen: the images to show, by id.
        image_root: the image root.
        ground_truth: a COCO json that is drawn as well.

    Raises:
        DataError: a file is damaged, a mask's size differs from its image's, or none of the images
            can be opened.
    """
    sizes = {number: image.size for number, image in chosen.items()}
    path = content.path
    records = best_records(path, sizes, score_threshold=content.score_threshold)
    # The name of a shard's file is its number.
    title = str(content.info.get("method") or path.stem)
    layers = [Layer(title, content.kind, path, records)]
    if ground_truth is not None:
        truth = best_records(ground_truth, sizes)
        layers.append(Layer("ground truth", "objects", ground_truth, truth))
    cards = [
        make_card(image_root, image, layers, {}, _note(content, number, records.get(number, [])))
        for number, image in chosen.items()
    ]
    if errors := [card.error for card in cards if card.error]:
        if len(errors) == len(cards):
            raise DataError(
                f"none of {len(cards)} images can be opened; the first: {errors[0]}. Is it their "
                "image root?",
                parameter="image_root",
            )
        logger.warning(
            "%d of %d images cannot be opened; the first: %s", len(errors), len(cards), errors[0]
        )
    return _render(content, cards)


def _note(content: Content, image_id: int, drawn: Sequence[Annotation]) -> str:
    """Describe an image's records: their number, how many are drawn, and the classes of these."""
    count = content.counts[image_id]
    if not count:
        return f"no {content.kind}"
    note = f"{count} {content.kind if count > 1 else content.kind.removesuffix('s')}"
    if count > len(drawn):
        note += f", of which the best {len(drawn)} are drawn"
    if len(content.classes) > 1:
        classes = Counter(record.category_id for record in drawn).most_common()
        named = [f"{n} {content.classes.get(key or 0, key)}" for key, n in classes[:_CLASSES]]
        note += f": {', '.join(named)}{', ...' if len(classes) > _CLASSES else ''}"
    return note


def _render(content: Content, cards: list[Card]) -> str:
    folder = resources.files("cuvler.report")
    css, js = (
        Markup(folder.joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 (a file of ours)
        for name in ("page.css", "page.js")
    )
    empty = sum(not content.counts[number] for number in content.images)
    facts = {
        "images": f"{len(content.images):,}",
        content.kind: f"{content.counts.total():,}",
        f"images without {content.kind}": f"{empty:,}",
    }
    if content.info.get("method"):
        facts["method"] = str(content.info["method"])
    if content.score_threshold:
        facts["smallest score"] = f"{content.score_threshold:g}"
    return render(
        "cuvler.view",
        title="/".join(content.path.parts[-2:]),
        cards=cards,
        shown=len(cards),
        content=content,
        facts=facts,
        css=css,
        js=js,
    )
