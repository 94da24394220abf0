"""What was tried, as a picture of each image and as one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cuvler.drawing import draw_masks, draw_rows
from cuvler.report.cards import Panel, make_panel
from cuvler.report.formats import counted, percent
from cuvler.report.templates import render
from cuvler.tuning.grid import Row, Setting
from cuvler.tuning.results import Line, best_of
from cuvler.tuning.snippet import config_snippet
from cuvler.tuning.trials import ImageTrials, Trial
from cuvler.tuning.truth import Score

_SIDE = 480  # pixels
_ENLARGED = 2.0  # times, at most
_Picture = tuple[str, str, Image.Image]  # title, note, drawn


@dataclass(frozen=True)
class Drawn:
    """The pictures of one image.

    Attributes:
        name: of the image.
        note: on the image, in words.
        first: the image, and the ground truth.
        rows: the pictures of each row of settings.
    """

    name: str
    note: str
    first: list[_Picture]
    rows: list[tuple[Row, list[_Picture]]]


@dataclass(frozen=True)
class Strip:
    """Pictures in a row on the page; ``settings`` are empty for the image itself."""

    title: str
    settings: tuple[Setting, ...]
    panels: list[Panel]


@dataclass(frozen=True)
class Section:
    """An image on the page, with its strips by backbones."""

    name: str
    note: str
    groups: dict[str, list[Strip]]


def draw_trials(
    name: str,
    image: Image.Image,
    rows: Sequence[Row],
    found: ImageTrials,
    *,
    objects: Sequence[NDArray[np.bool_]] | None = None,
    scores: Mapping[Setting, Score],
) -> Drawn:
    """Draw what each setting finds in an RGB image, in at most 480 pixels.

    Args:
        name: of the image.
        image: RGB.
        rows: the settings.
        found: in the image.
        objects: the ground truth's masks, if there is any.
        scores: of the settings, with ground truth.
    """
    # Small images are enlarged, so that contours and scores stay thin.
    scale = min(_ENLARGED, _SIDE / max(image.size))
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    first: list[_Picture] = [("image", f"{image.width} x {image.height} pixels", small)]
    if objects is not None:
        drawn = draw_masks(small, [_resized(mask, small) for mask in objects])
        first.append(("ground truth", counted(len(objects), "object"), drawn))
    drawn_rows = [
        (row, [_picture(small, s, found.trials[s], scores.get(s)) for s in row.settings])
        for row in rows
    ]
    return Drawn(name, _note(found), first, drawn_rows)


def _note(found: ImageTrials) -> str:
    if found.is_uniform:
        return "The image has one colour, so nothing is looked for"
    took = [f"{spec.name} {spec.size} px {time:.2f} s" for spec, time in found.seconds.items()]
    return f"Features: {', '.join(took)}"


def _picture(small: Image.Image, setting: Setting, trial: Trial, score: Score | None) -> _Picture:
    masks = [_resized(mask.mask, small) for mask in trial.masks]
    scores = [mask.score for mask in trial.masks] if setting.method.scored else None
    note = f"{counted(len(masks), 'mask')}, {trial.seconds:.2f} s"
    if score is not None:
        note += f", AP {percent(score.ap)}"
    return setting.tau_label, note, draw_masks(small, masks, scores)


def draw_sheet_of(drawn: Drawn) -> Image.Image:
    """Return all pictures of an image in one."""
    rows = [("", drawn.first)]
    rows += [(f"{row.label}   ({row.backbones})", pictures) for row, pictures in drawn.rows]
    return draw_rows(
        [
            (heading, [(f"{title}: {note}", picture) for title, note, picture in pictures])
            for heading, pictures in rows
        ],
        side=_SIDE,
    )


def make_section(drawn: Drawn) -> Section:
    """Return an image's part of the page, with the pictures encoded."""
    groups = {"": [Strip("image", (), _panels(drawn.name, "image", drawn.first))]}
    for row, pictures in drawn.rows:
        panels = _panels(drawn.name, f"{row.label}, {row.backbones}", pictures)
        strip = Strip(row.label, row.settings, panels)
        groups.setdefault(row.backbones, []).append(strip)
    return Section(drawn.name, drawn.note, groups)


def _panels(name: str, row: str, pictures: Sequence[_Picture]) -> list[Panel]:
    return [
        make_panel(title, note, f"{row}, {title}: {note}, over {name}", picture)
        for title, note, picture in pictures
    ]


def make_page(sections: Sequence[Section], lines: Sequence[Line]) -> str:
    """Return a self-contained HTML page.

    Args:
        sections: of the images.
        lines: the averages of all settings, with ground truth the best first.
    """
    folder = resources.files("cuvler.report")
    css, js = (
        Markup(folder.joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 (a file of ours)
        for name in ("page.css", "page.js")
    )
    best, scored = best_of(lines), lines[0].score is not None
    names = [section.name for section in sections]
    return render(
        "cuvler.tuning",
        title=names[0] if len(names) == 1 else counted(len(names), "image"),
        sections=sections,
        lines=lines if len(names) > 1 or scored else [],
        tried=counted(len(lines), "setting"),
        scored=scored,
        several=len({line.row.backbones for line in lines}) > 1,
        best=best and best.setting,
        best_line=best,
        snippet=config_snippet,
        css=css,
        js=js,
    )


def _resized(mask: NDArray[np.bool_], picture: Image.Image) -> NDArray[np.bool_]:
    small = Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST)
    return np.asarray(small, dtype=np.bool_)
