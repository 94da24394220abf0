from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

import cuvler
from cuvler.drawing import PALETTE, draw_heat_map, draw_masks, draw_rows, draw_sheet

SIZE = (120, 80)


def grey(size=SIZE, level=128):
    return Image.new("RGB", size, (level, level, level))


def square(top, left, side, size=SIZE):
    mask = np.zeros(size[::-1], bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_mask_is_tinted_and_outlined_and_the_rest_stays():
    pixels = np.asarray(draw_masks(grey(), [square(20, 30, 30)], opacity=0.5))
    assert tuple(pixels[35, 45]) == tuple((128 + value) // 2 for value in PALETTE[0])
    assert tuple(pixels[20, 45]) == PALETTE[0]
    assert tuple(pixels[19, 45]) == (44, 44, 44)  # the hairline outside
    outside = ~square(19, 29, 32)
    assert (pixels[outside] == 128).all()


def test_no_contour_where_the_picture_ends():
    pixels = np.asarray(draw_masks(grey(), [square(0, 0, 30)], opacity=0.5))
    assert tuple(pixels[0, 10]) != PALETTE[0]
    assert tuple(pixels[29, 10]) == PALETTE[0]


def test_the_first_mask_lies_on_top_and_colours_differ():
    masks = [square(10, 10, 30), square(10, 10, 30)]
    assert tuple(np.asarray(draw_masks(grey(), masks))[10, 20]) == PALETTE[0]
    masks = [square(0, 0, 1), square(10, 10, 30)]
    assert tuple(np.asarray(draw_masks(grey(), masks))[10, 20]) == PALETTE[1]
    assert len(set(PALETTE)) == len(PALETTE)


def test_an_empty_mask_shows_nothing():
    empty = np.zeros_like(square(0, 0, 1))
    for scores in (None, [0.9, 0.4]):
        both = draw_masks(grey(), [square(10, 10, 30), empty], scores)
        alone = draw_masks(grey(), [square(10, 10, 30)], scores and scores[:1])
        assert ImageChops.difference(both, alone).getbbox() is None


def test_a_small_mask_is_seen_on_a_larger_one():
    for masks in ([square(0, 0, 60), square(10, 10, 20)], [square(10, 10, 20), square(0, 0, 60)]):
        colour = PALETTE[0 if masks[0].sum() == 400 else 1]
        assert tuple(np.asarray(draw_masks(grey(), masks))[10, 20]) == colour


def test_what_was_found_is_plotted_whatever_found_it():
    masks = [square(10, 10, 30), square(40, 70, 30)]
    pseudo = [SimpleNamespace(mask=masks[0], score=0.9), SimpleNamespace(mask=masks[1], score=0.4)]
    instances = SimpleNamespace(
        pred_masks=torch.from_numpy(np.stack(masks)), scores=torch.tensor([0.9, 0.4])
    )
    expected = draw_masks(grey(), masks, [0.9, 0.4])
    assert cuvler.plot(grey(), pseudo) == expected
    assert cuvler.plot(grey(), instances) == expected
    assert cuvler.plot(grey(), masks) == draw_masks(grey(), masks)
    best = draw_masks(grey(), masks[:1], [0.9])
    assert cuvler.plot(grey(), pseudo, score_threshold=0.5) == best
    assert cuvler.plot(grey().convert("L"), []) == grey()


def test_a_small_mask_keeps_its_pixels():
    size = (640, 400)
    mask = square(200, 300, 10, size)
    pixels = np.asarray(draw_masks(grey(size), [mask], [0.5]))
    inside = pixels[mask].astype(int)
    assert (inside == inside[0]).all()  # neither contour nor label
    assert (np.abs(inside[0] - 128) < 40).all()  # a light tint
    assert tuple(pixels[205, 310]) == tuple(pixels[205, 311]) == PALETTE[0]


@pytest.mark.parametrize("side", [20, 60])
def test_a_mask_that_is_the_whole_picture_has_no_contour(side):
    pixels = np.asarray(draw_masks(grey((side, side)), [np.ones((side, side), bool)], opacity=0.5))
    assert (pixels == pixels[0, 0]).all()


def test_the_image_itself_is_not_changed():
    image = grey()
    draw_masks(image, [square(1, 1, 9)], [0.5])
    assert ImageChops.difference(image, grey()).getbbox() is None


def test_scores_are_written_in_the_masks_colour_and_do_not_cover_each_other():
    size = (600, 400)
    masks = [square(100, 100, 120, size)] * 3
    scores = [0.9, 0.8, 0.7]
    plain = draw_masks(grey(size), masks, opacity=0)
    pixels = np.asarray(draw_masks(grey(size), masks, scores, opacity=0)).astype(int)
    changed = (pixels != np.asarray(plain)).any(axis=2)
    areas = [(changed & (pixels == colour).all(axis=2)).sum() for colour in PALETTE[:3]]
    assert min(areas) > 200
    assert max(areas) < 1.3 * min(areas)  # none is hidden behind another


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 9),
    count=st.integers(0, 4),
)
def test_any_masks_on_any_size(size, seed, count):
    generator = np.random.default_rng(seed)
    masks = [generator.random(size[::-1]) < generator.random() for _ in range(count)]
    masks.append(np.zeros(size[::-1], bool))
    drawn = draw_masks(grey(size), masks, generator.random(count + 1).tolist())
    assert drawn.size == size
    assert drawn.mode == "RGB"


def test_masks_of_another_size_and_scores_too_few_are_refused():
    with pytest.raises(ValueError, match=r"mask of \(3, 3\) on an image of \(80, 120\)"):
        draw_masks(grey(), [np.ones((3, 3), bool)])
    with pytest.raises(ValueError, match="1 scores for 2 masks"):
        draw_masks(grey(), [square(0, 0, 2), square(0, 0, 3)], [0.5])


def test_heat_map_runs_from_dark_to_bright_whatever_the_scale():
    values = np.linspace(-0.02, 0.03, 24).reshape(1, 24)
    picture = draw_heat_map(np.repeat(values, 16, axis=0), (240, 160))
    assert picture.size == (240, 160)
    lightness = np.asarray(picture.convert("L")).astype(int)[80]
    assert lightness[0] < 10
    assert lightness[-1] > 240
    assert (np.diff(lightness) >= -1).all()
    scaled = draw_heat_map(np.repeat(values, 16, axis=0) * 1000, (240, 160))
    difference = np.asarray(ImageChops.difference(picture, scaled))
    assert difference.max() <= 4  # at most one step of the map, from rounding


def test_heat_maps_have_the_colours_of_magma():
    levels = np.arange(256, dtype=np.float32).reshape(16, 16)
    levels = np.pad(levels, ((3, 3), (0, 0)), "edge")  # The ends that share a colour.
    colours = matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3]
    picture = np.asarray(draw_heat_map(levels, levels.shape[::-1]))
    assert {tuple(colour) for colour in picture.reshape(-1, 3)} <= {tuple(c) for c in colours}
    assert tuple(picture[0, 0]) == tuple(colours[0])
    assert tuple(picture[-1, -1]) == tuple(colours[-1])


def test_an_outlier_leaves_the_heat_map_its_colours():
    values = np.repeat(np.linspace(0, 1, 20).reshape(1, 20), 20, axis=0)
    values[0, 0] = 1000
    lightness = np.asarray(draw_heat_map(values, (200, 200)).convert("L")).astype(int)[150]
    assert lightness[0] < 10
    assert lightness[-1] > 240


@pytest.mark.parametrize("value", [0.0, 3.5, np.nan])
def test_heat_map_of_a_constant_is_dark(value):
    picture = draw_heat_map(np.full((4, 5), value, np.float32), (50, 40))
    assert np.asarray(picture).max() < 10


def test_a_sheet_has_every_picture_under_its_name():
    colours = [(name, Image.new("RGB", SIZE, name)) for name in ("red", "green", "blue")]
    sheet = draw_sheet(colours, columns=2, side=60)
    assert sheet.size == (2 * 60 + 8, 2 * (40 + 30) + 8)
    assert sheet.getpixel((30, 50)) == (255, 0, 0)
    assert sheet.getpixel((98, 50)) == (0, 128, 0)
    assert sheet.getpixel((30, 128)) == (0, 0, 255)
    heads = np.asarray(sheet.convert("L"))[:30]
    assert heads[:, :60].min() < 100  # a name
    assert heads[:, 68:].min() < 100
    assert (np.asarray(sheet)[78:, 68:] == 255).all()  # nothing where no picture is
    plain = draw_sheet([*colours[:2], ("", colours[2][1])], columns=2, side=60)
    assert plain.size == (2 * 60 + 8, 2 * 40 + 30 + 8)


def test_rows_have_headings_and_names_within_their_pictures():
    square = Image.new("RGB", (120, 120), "blue")
    rows = [("", [("a", square)]), ("heading", [("a name that is long", square), ("b", square)])]
    sheet = np.asarray(draw_rows(rows, side=120).convert("L"))
    assert sheet.shape == (2 * (120 + 30) + 38 + 8, 2 * 120 + 8)
    second = 30 + 120 + 8
    assert sheet[second : second + 38].min() < 100  # the heading
    assert (sheet[second + 38 : second + 68, 120:128] == 255).all()  # the gap
    assert (sheet[:150, 128:] == 255).all()
