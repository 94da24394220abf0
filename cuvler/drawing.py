"""Drawing masks on images, eigenvectors as heat maps, and contact sheets."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cuvler.files import StrPath, atomic_path
from cuvler.labels import place_labels
from cuvler.masks import bounding_box

if TYPE_CHECKING:
    from detectron2.structures import Instances

    from cuvler.pseudo_masks import PseudoMask

# Ten hues, distinguishable on photographs and for most colour-blind readers.
PALETTE = (
    (255, 82, 82),
    (41, 152, 255),
    (255, 202, 40),
    (38, 198, 118),
    (190, 110, 255),
    (255, 138, 40),
    (30, 210, 222),
    (255, 100, 180),
    (172, 214, 54),
    (124, 136, 255),
)
_Colour = tuple[int, int, int]
# Matplotlib's colour map magma (CC0): 256 RGB colours of evenly increasing lightness.
_MAGMA = np.frombuffer(
    base64.b85decode(
        "0009300aO41_1yE0RagC0Sf{G4FUoW0|OBR0}})U6$Jzr1_c=h1sezk9SH{?3I`$!2qX*%CJhQG4hkv{3oH-}FA)"
        "qe5)CsH4K)=GI2H~%7Y{rb4?h|ZK^qW691unx5J?{qOCS+VA`ws{5mF@)RVEQvC=ppI5nL+~UM&z{FA!od5M?qDX"
        "EYFKH4kbx4{SLPZaWWeJP&a`4{|^cb3zYvLl1RD4|YcncSsO;N)UNV5P3}zdQTC1P!fAm5`0q=d{q;DR}_6%6@FS"
        "3ep?oPT^D{{7k^+Fe_<GZV;O&C8h~aRfM^?lX&iuS9Dr;cfNmavZytehAAxfpfpj2&b|HaxA%S@!fqEi=d?SH=B!"
        "Pb<fq^A~f+c~3CV_<}frlr7i70`JD1nSAfQ>1Dk1BwXDu9wJfRrnMl`MdlEPt6Tf0`|SoGyQ!E`FacexWaZqcDD?"
        "Fny*meWx*fsWN=4GkmNwd#*HlurzzIHF~o(dbKurwl;aVH+Z=>c)K`vy*YQjId;H0b;3Gz!#i}vJaoo9bI3h%%06"
        "<-K5@-IaLzz*&_Qp}LT=MSZPY_;)<kUAMQhncYT8F>+(>ENNod|mXW&a_;Y?=YO=aXxWaUs}=22qjQex;-Vd_<2>"
        "sDawSYPc~U+!C8?p<B)US05DUGZUD@?%`{WnA-TTl8pK^=e!7Y+LqjTlR2U_i<bIb6og!T=;if`FULVdtLc`UHX4"
        "s`hZ^gf?xZDVEcw(`-oxtiemhXWBiU|{E%e)l4bmpX8o0C{g-I{nQ8r-YW<yS{hw_8p>F-6Z~dfj{-$yMsB`|Rbp"
        "EV${;qcZuXz5kdH%C|{<VDmw|)M(fBw6G{=9<zzJvb2h5o{Z{=|s>#)<yNi~h-t{>zU2&5-@ilKs(>{nC~F)R+C%"
        "nElwA{o0)U+@1a1pZ(vV{o$kh<E8xNru^op{OGFu>a6_iuKez>{P3~-@w5E%wfyzB`}eu~`Mdl2z5D#X"
    ),
    dtype=np.uint8,
).reshape(256, 3)
_SHEET_SIDE = 480  # pixels
# Pixels between the pictures of a sheet, for the names of a row, and for a row's heading.
_GAP, _HEAD, _TITLE = 8, 30, 38
_INK = "#16202c"
_DARK = (16, 16, 16)
_SMALL = 8  # An object less wide or high than so many contours has its contour outside.


def draw_masks(
    image: Image.Image,
    masks: Sequence[NDArray[np.bool_]],
    scores: Sequence[float] | None = None,
    *,
    opacity: float = 0.4,
    colours: Sequence[_Colour] = PALETTE,
) -> Image.Image:
    """Draw masks on an image, each with a tint, a contour and, if given, its score.

    Masks are drawn from large to small; of equal areas, the first is on top. Contours and labels
    scale with the image, so that they are legible in a thumbnail.

    Args:
        image: RGB.
        masks: each (height, width), the size of the image.
        scores: one per mask, written near it with two decimals; where there is no room without
            hiding small objects or higher scores, it is left out.
        opacity: of the tint, from 0 (contours only) to 1; small masks have half of it.
        colours: RGB, used cyclically.

    Returns:
        A new RGB image of the same size.

    Raises:
        ValueError: a mask's size differs from the image's, or the numbers of scores and masks
            differ.
    """
    if scores is not None and len(scores) != len(masks):
        raise ValueError(f"{len(scores)} scores for {len(masks)} masks")
    pixels = np.array(image.convert("RGB"))
    thickness = max(1, round(max(image.size) / 220))
    for index in sorted(range(len(masks)), key=lambda index: (-masks[index].sum(), -index)):
        if masks[index].shape != pixels.shape[:2]:
            raise ValueError(f"mask of {masks[index].shape} on an image of {pixels.shape[:2]}")
        _tint(pixels, masks[index], colours[index % len(colours)], opacity, thickness)
    drawn = Image.fromarray(pixels)
    if scores is not None:
        _write_scores(drawn, masks, scores, colours)
    return drawn


def plot(
    image: Image.Image,
    found: "Sequence[PseudoMask] | Sequence[NDArray[np.bool_]] | Instances",
    *,
    score_threshold: float = 0.0,
) -> Image.Image:
    """Draw pseudo-masks or predictions on an image; a notebook displays the result.

    Args:
        image: any mode; converted to RGB.
        found: the result of :func:`cuvler.discover` or of a detector, or masks of shape
            (height, width).
        score_threshold: masks with a lower score are not drawn; plain masks have no score.

    Returns:
        An RGB image of the same size.

    Raises:
        ValueError: a mask's size differs from the image's.
    """
    pairs: Iterable[tuple[Any, float | None]]
    instances: Any = found
    if hasattr(found, "pred_masks"):
        pairs = zip(instances.pred_masks.numpy(), instances.scores.tolist(), strict=True)
    else:
        pairs = [(getattr(m, "mask", m), getattr(m, "score", None)) for m in found]
    shown = [(mask, score) for mask, score in pairs if score is None or score >= score_threshold]
    scores = [score for _, score in shown if score is not None]
    masks = [np.asarray(mask, dtype=bool) for mask, _ in shown]
    return draw_masks(image, masks, scores if len(scores) == len(masks) else None)


def draw_heat_map(values: NDArray[np.floating], size: tuple[int, int]) -> Image.Image:
    """Draw an eigenvector as a heat map from dark (small values) to bright (large values).

    Values are clipped to their 1st and 99th percentile, so that a few outliers do not compress
    the colour range.

    Args:
        values: (h, w), on the patch grid; NaN and infinite values are drawn dark.
        size: (width, height) of the result in pixels.

    Returns:
        An RGB image.
    """
    finite = np.isfinite(values)
    low, high = np.percentile(values[finite], (1, 99)) if finite.any() else (0.0, 0.0)
    spread = float(high - low) or 1.0
    levels = np.where(finite, (values - low) / spread, 0).clip(0, 1) * 255
    # Resize before colouring: interpolated colours are not on the colour map.
    small = Image.fromarray(levels.astype(np.float32))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(_MAGMA[smooth.clip(0, 255).round().astype(np.uint8)])


def draw_eigenvectors(
    image: Image.Image, eigenvectors: Mapping[str, NDArray[np.floating]]
) -> Image.Image:
    """Arrange an image and its eigenvectors, title -> (h, w), as heat maps in a sheet."""
    small = image.copy()
    small.thumbnail((_SHEET_SIDE, _SHEET_SIDE), Image.Resampling.LANCZOS)
    maps = [(title, draw_heat_map(map_, small.size)) for title, map_ in eigenvectors.items()]
    return draw_sheet([("image", small), *maps])


def write_png(picture: Image.Image, path: StrPath) -> None:
    """Write a picture as PNG, atomically.

    Level 2 of the compression takes a third of the default's time, 0.9 s of 3.4 for 12 megapixels,
    for files that are 17 % larger.
    """
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=2)


def draw_sheet(
    pictures: Sequence[tuple[str, Image.Image]], *, columns: int = 4, side: int = _SHEET_SIDE
) -> Image.Image:
    """Arrange images of equal size in rows, with their names above them.

    Args:
        pictures: (name, RGB image) pairs in reading order, at least one. Rows without any names
            have no heading.
        columns: largest number of images in a row.
        side: largest length of an image's longer side, in pixels.

    Returns:
        An RGB image on white.
    """
    rows = [("", pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    return draw_rows(rows, side=side)


def draw_rows(
    rows: Sequence[tuple[str, Sequence[tuple[str, Image.Image]]]], *, side: int = _SHEET_SIDE
) -> Image.Image:
    """Arrange images of equal size in rows, each with a heading.

    Args:
        rows: (heading, images) pairs; images are (name, RGB image) pairs, and their names are
            above them. There is no space for headings and names that are empty in a whole row.
        side: largest length of an image's longer side, in pixels.

    Returns:
        An RGB image on white.
    """
    first = rows[0][1][0][1]
    scale = min(1.0, side / max(first.size))
    width, height = (max(1, round(length * scale)) for length in first.size)
    tops = [_TITLE if title else 0 for title, _ in rows]
    heads = [_HEAD if any(name for name, _ in row) else 0 for _, row in rows]
    columns = max(len(row) for _, row in rows)
    total = sum(tops) + sum(heads) + len(rows) * (height + _GAP) - _GAP
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, total), "white")
    draw, bottom = ImageDraw.Draw(sheet), 0
    for (title, row), above, head in zip(rows, tops, heads, strict=True):
        font = _fitting(title, sheet.width - 2 * _GAP, largest=21)
        draw.text((_GAP, bottom + above // 2 + _GAP // 2), title, _INK, font, anchor="lm")
        top = bottom + above
        for column, (name, picture) in enumerate(row):
            left = column * (width + _GAP)
            font = _fitting(name, width)
            draw.text((left + width // 2, top + head // 2), name, _INK, font, anchor="mm")
            small = picture.resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, top + head))
        bottom = top + head + height + _GAP
    return sheet


def _fitting(text: str, width: int, *, largest: int = 17) -> Any:
    """Return the largest font in which a text fits a width in pixels, down to a legible size."""
    for size in range(largest, 9, -1):
        font = ImageFont.load_default(size=size)
        if font.getlength(text) <= width:
            break
    return font


def _tint(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    colour: _Colour,
    opacity: float,
    thickness: int,
) -> None:
    left, top, right, bottom = bounding_box(mask)
    if right == 0:
        return
    # A contour inside a small object would hide it.
    is_small = min(right - left, bottom - top) < _SMALL * thickness
    margin = thickness + 1
    rows = slice(max(top - margin, 0), bottom + margin)
    columns = slice(max(left - margin, 0), right + margin)
    inside, view = mask[rows, columns], pixels[rows, columns]
    tint = opacity / 2 if is_small else opacity
    view[inside] = (view[inside] * (1 - tint) + np.array(colour) * tint).astype(np.uint8)
    outside = _distances(~inside)
    contour = (0, thickness) if is_small else (-thickness, 0)
    depth = np.where(inside, 1 - _distances(inside), outside)
    view[(depth > contour[0]) & (depth <= contour[1])] = colour
    # A dark hairline outside keeps the contour visible on a background of the same colour.
    hairline = depth == contour[1] + 1
    view[hairline] = (view[hairline] * 0.35).astype(np.uint8)


def _distances(area: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return each pixel's city-block distance to the nearest pixel outside; 0 outside.

    The picture's border does not count: there is no contour where it cuts an object.
    """
    if area.all():
        return np.full(area.shape, np.iinfo(np.int32).max // 2, dtype=np.int32)
    distances: NDArray[np.int32] = scipy.ndimage.distance_transform_cdt(area, metric="taxicab")
    return distances


def _write_scores(
    image: Image.Image,
    masks: Sequence[NDArray[np.bool_]],
    scores: Sequence[float],
    colours: Sequence[_Colour],
) -> None:
    """Write scores near their masks, the highest first; a line leads to a mask that is apart."""
    draw = ImageDraw.Draw(image)
    # Smaller where there are many, so that there is room for them.
    crowd = min(1.0, max(0.7, (12 / max(len(masks), 1)) ** 0.5))
    font_size = max(11, round(max(image.size) / 36 * crowd))
    font = ImageFont.load_default(size=font_size)
    x0, y0, x1, y1 = (int(side) for side in draw.textbbox((0, 0), "0.00", font=font))
    pad = max(2, font_size // 6)
    size = (x1 - x0 + 2 * pad, y1 - y0 + 2 * pad)
    order = sorted(range(len(masks)), key=lambda index: -scores[index])
    places = place_labels([masks[index] for index in order], size, image.size)
    found = [(index, place) for index, place in zip(order, places, strict=True) if place]
    thin = max(1, font_size // 10)
    for index, place in found:
        nearest = place.nearest(size)
        if math.dist(nearest, place.anchor) > size[1] / 2:
            for width, colour in ((3 * thin, _DARK), (thin, colours[index % len(colours)])):
                draw.line((nearest, place.anchor), fill=colour, width=width)
    for index, place in found:
        area = (place.left, place.top, place.left + size[0] - 1, place.top + size[1] - 1)
        colour = colours[index % len(colours)]
        draw.rounded_rectangle(area, radius=pad, fill=colour, outline=_DARK, width=thin)
        origin = (place.left + pad - x0, place.top + pad - y0)
        draw.text(origin, f"{scores[index]:.2f}", font=font, fill=_DARK)
