import io

import numpy as np
import pytest
from PIL import Image

from cuvler.uniform import is_uniform


def noisy(level, sigma, size=(480, 640)):
    pixels = np.random.default_rng(0).normal(level, sigma, (*size, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def as_jpeg(pixels, quality):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return Image.open(stream)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (20_000, 1), (640, 480)])
def test_one_colour_in_every_mode_and_size(mode, size):
    assert is_uniform(Image.new(mode, size))


@pytest.mark.parametrize("level", [0, 3, 128, 255])
@pytest.mark.parametrize("quality", [5, 50, 95])
def test_noise_of_a_camera_and_of_jpeg_is_no_content(level, quality):
    assert is_uniform(as_jpeg(noisy(level, 3), quality))
    assert is_uniform(Image.fromarray(noisy(level, 3)))


@pytest.mark.parametrize("quality", [50, 95])
def test_a_faint_or_small_object_is_content(quality):
    faint, small = noisy(20, 1), noisy(0, 1)
    faint[200:300, 200:340] += 8
    small[200:220, 300:330] = 200
    for pixels in (faint, small):
        assert not is_uniform(as_jpeg(pixels, quality))


def test_bars_around_a_picture_do_not_make_it_uniform():
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[100:380] = noisy(90, 20, (280, 640))
    assert not is_uniform(Image.fromarray(pixels))
    pixels[100:380] = 90  # bars alone: a picture of one colour, but two colours in all
    assert not is_uniform(Image.fromarray(pixels))


def test_an_object_by_its_texture_alone():
    pixels = np.full((480, 640, 3), 100, np.uint8)
    pixels[200:280, 200:280] = np.indices((80, 80)).sum(0)[..., None] % 2 * 120 + 40
    assert not is_uniform(Image.fromarray(pixels))
