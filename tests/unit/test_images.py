import contextlib
import errno
import io
import os
import sys
import zlib

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cuvler.decoded_images import DecodedImages
from cuvler.errors import ConfigError, ImageError
from cuvler.image_access import MAX_PIXELS_VARIABLE
from cuvler.images import image_size, open_image, open_resized


def save_turned(upright, path, orientation):
    """Save an image as a camera held in some way stores it."""
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.rotate(270, expand=True),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif, lossless=True)


def encoded(kind):
    stream = io.BytesIO()
    noise = Image.effect_noise((23, 17), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    noise.save(stream, kind, **options)
    return stream.getvalue()


pillow_heif.register_heif_opener()  # to write them
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
ENCODED = {kind: encoded(kind) for kind in KINDS}


class TestOpenImage:
    @pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1", "I", "I;16", "F"])
    def test_every_mode_becomes_rgb(self, tmp_path, mode):
        extension = "tif" if mode in ("CMYK", "F", "I") else "png"
        Image.new("L", (5, 4), 128).convert(mode).save(tmp_path / f"image.{extension}")
        image = open_image(tmp_path / f"image.{extension}")
        assert (image.mode, image.size) == ("RGB", (5, 4))
        assert image_size(tmp_path / f"image.{extension}") == (5, 4)

    def test_16_bit_values_are_scaled_not_clipped(self, tmp_path):
        ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
        Image.fromarray(ramp).save(tmp_path / "ramp.png")
        pixels = np.asarray(open_image(tmp_path / "ramp.png"))[..., 0]
        np.testing.assert_allclose(pixels.ravel(), np.arange(256), atol=1)

    def test_floating_point_values_to_1_are_scaled(self, tmp_path):
        ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
        Image.fromarray(ramp).save(tmp_path / "ramp.tif")
        pixels = np.asarray(open_image(tmp_path / "ramp.tif"))[..., 0]
        np.testing.assert_allclose(pixels.ravel(), np.arange(256), atol=1)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("extension", ["png", "webp"])
    def test_exif_orientation_is_applied(self, tmp_path, orientation, extension):
        upright = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))
        save_turned(upright, tmp_path / f"a.{extension}", orientation)
        np.testing.assert_array_equal(open_image(tmp_path / f"a.{extension}"), upright)
        assert image_size(tmp_path / f"a.{extension}") == upright.size

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_annotations_size_says_which_way_up_they_were_written(self, tmp_path, orientation):
        upright = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))
        path = tmp_path / "a.png"
        save_turned(upright, path, orientation)
        with Image.open(path) as image:
            stored = image.copy()
        for size in {upright.size, stored.size}:
            meant = upright if size == upright.size else stored
            np.testing.assert_array_equal(open_image(path, size), meant)
            assert image_size(path, size) == size
        for read in (open_image, image_size):
            with pytest.raises(ImageError, match="is 7 x 5 pixels, but 7 x 6 in") as e:
                read(path, (7, 6))
            assert e.value.status == "wrong_size"

    def test_where_both_ways_fit_the_image_is_upright(self, tmp_path):
        upright = Image.fromarray(np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3))
        save_turned(upright, tmp_path / "a.png", 6)
        np.testing.assert_array_equal(open_image(tmp_path / "a.png", (5, 5)), upright)

    @pytest.mark.parametrize("orientation", [0, 9])
    def test_an_orientation_that_is_none_is_passed_over(self, tmp_path, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
        assert open_image(tmp_path / "a.jpg").size == (40, 20)

    def test_broken_exif_does_not_cost_the_image(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010E] = "a description"
        Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
        content = (tmp_path / "a.jpg").read_bytes()
        start = content.index(b"Exif\0\0") + 6
        sizes = set()
        for position in range(start, start + 40):
            damaged = bytearray(content)
            damaged[position] ^= 0xFF
            (tmp_path / "a.jpg").write_bytes(damaged)
            sizes.add(open_image(tmp_path / "a.jpg").size)
        assert sizes == {(20, 40), (40, 20)}

    def test_the_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
        assert open_image(tmp_path / "a.webp").getpixel((0, 0)) == (255, 0, 0)

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not an image", None])
    def test_a_bad_file_is_unreadable(self, tmp_path, content):
        path = tmp_path / "bad.jpg"
        if content is None:  # cut off in the middle
            Image.effect_noise((64, 64), 50).save(path)
            content = path.read_bytes()[:-200]
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"bad\.jpg") as caught:
            open_image(path)
        assert caught.value.status == "unreadable"

    @settings(max_examples=300)
    @given(data=st.data(), kind=st.sampled_from(sorted(ENCODED)))
    def test_changed_bytes_give_an_image_or_an_image_error(self, tmp_path_factory, data, kind):
        content = bytearray(ENCODED[kind])
        for _ in range(data.draw(st.integers(1, 4))):
            # Headers and tables are at the beginning; pixels may be anything.
            position = data.draw(st.integers(0, min(len(content), 300) - 1))
            content[position] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.getbasetemp() / "changed.jpg"
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))] or content)
        with contextlib.suppress(ImageError):
            assert open_image(path).mode == "RGB"

    def test_postscript_is_not_run(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        with pytest.raises(ImageError, match="cannot identify"):
            open_image(tmp_path / "a.jpg")

    @pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 20_000), (20_000, 400)])
    def test_very_small_and_very_long_images(self, tmp_path, size):
        Image.new("RGB", size, "red").save(tmp_path / "a.png")
        image = open_image(tmp_path / "a.png")
        assert (image.size, image.getpixel((0, 0))) == (size, (255, 0, 0))

    @pytest.mark.parametrize("side", [10_001, 20_000])
    def test_an_image_of_too_many_pixels_is_refused_by_its_header(self, tmp_path, side):
        Image.new("1", (side, side)).save(tmp_path / "huge.png")
        content = (tmp_path / "huge.png").read_bytes()
        (tmp_path / "huge.png").write_bytes(content[:100])  # the pixels are never read
        with pytest.raises(ImageError, match=r"huge\.png: too large, .*max_pixels") as caught:
            open_image(tmp_path / "huge.png")
        assert caught.value.status == "unreadable"

    def test_the_limit_of_pixels_is_a_setting(self, tmp_path, monkeypatch):
        Image.new("L", (20_000, 10_000)).save(tmp_path / "large.png")
        Image.new("L", (30, 40)).save(tmp_path / "small.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        monkeypatch.setenv(MAX_PIXELS_VARIABLE, "200000000")
        assert open_image(tmp_path / "large.png").size == (20_000, 10_000)
        monkeypatch.setenv(MAX_PIXELS_VARIABLE, "1199")
        with pytest.raises(ImageError, match="max_pixels"):
            open_image(tmp_path / "small.png")
        assert image_size(tmp_path / "small.png") == (30, 40)
        for wrong in ("0", "-1", "1e9", "many"):
            monkeypatch.setenv(MAX_PIXELS_VARIABLE, wrong)
            with pytest.raises(ConfigError, match=MAX_PIXELS_VARIABLE):
                open_image(tmp_path / "small.png")

    def test_a_png_whose_text_is_a_bomb(self, tmp_path):
        Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()
        body = b"zTXtcomment\0\0" + zlib.compress(bytes(100_000_000))
        chunk = (len(body) - 4).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
        (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
        with pytest.raises(ImageError, match="too large"):
            open_image(tmp_path / "a.png")

    def test_a_file_that_may_not_be_read_is_unreadable(self, public_folder, as_plain_user):
        Image.new("RGB", (4, 4)).save(public_folder / "a.png")
        (public_folder / "a.png").chmod(0)
        with as_plain_user(), pytest.raises(ImageError, match="Permission denied") as caught:
            open_image(public_folder / "a.png")
        assert caught.value.status == "unreadable"

    @pytest.mark.parametrize("failures", [1, 3, 4])
    def test_a_file_system_may_recover(self, tmp_path, monkeypatch, failures):
        Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
        left = [OSError(errno.EIO, os.strerror(errno.EIO))] * failures
        whole = Image.open

        def failing(*arguments, **options):
            if left:
                raise left.pop()
            return whole(*arguments, **options)

        waited = []
        monkeypatch.setattr(Image, "open", failing)
        monkeypatch.setattr("time.sleep", waited.append)
        if failures < 4:
            assert open_image(tmp_path / "a.png").size == (4, 3)
        else:
            with pytest.raises(ImageError, match="Input/output error") as caught:
                open_image(tmp_path / "a.png")
            assert caught.value.status == "unreadable"
        assert waited == [1, 5, 20][:failures]

    @pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
    def test_an_image_is_not_blamed_for_the_machine(self, tmp_path, monkeypatch, code):
        def failing(*arguments, **options):
            raise OSError(code, os.strerror(code))

        (tmp_path / "a.png").touch()
        monkeypatch.setattr(Image, "open", failing)
        with pytest.raises(OSError, match=os.strerror(code)):
            open_image(tmp_path / "a.png")

    def test_a_link_to_nothing_is_missing(self, tmp_path):
        (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / "a.jpg")
        assert caught.value.status == "missing"

    def test_odd_names_are_opened(self, tmp_path, odd_names):
        Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg")
        for name in odd_names:
            (tmp_path / name).symlink_to(tmp_path / "a.jpg")
            assert open_image(tmp_path / name).size == (4, 3)

    def test_a_pipe_is_never_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.jpg")
        for read in (open_image, image_size):
            with pytest.raises(ImageError, match=r"a\.jpg: a pipe") as caught:
                read(tmp_path / "a.jpg")
            assert caught.value.status == "unreadable"

    @pytest.mark.parametrize("extension", ["heic", "heif", "avif", "tif", "bmp"])
    def test_photographs_of_phones_and_scanners(self, tmp_path, extension):
        stored = Image.new("RGB", (64, 48), "red")
        stored.paste("blue", (0, 0, 64, 24))
        exif = stored.getexif()
        exif[0x0112] = 6
        options = {"exif": exif} if extension in ("avif", "tif") else {}
        stored.save(tmp_path / f"a.{extension}", **options)
        image = open_image(tmp_path / f"a.{extension}")
        upright = stored if extension == "bmp" else stored.transpose(Image.Transpose.ROTATE_270)
        assert image.mode == "RGB"
        assert image_size(tmp_path / f"a.{extension}") == image.size == upright.size
        assert np.abs(np.asarray(image, int) - np.asarray(upright, int)).mean() < 5

    def test_a_truncated_file_is_one_line(self, tmp_path):
        Image.effect_noise((64, 48), 90).convert("RGB").save(tmp_path / "a.heic")
        content = (tmp_path / "a.heic").read_bytes()
        (tmp_path / "a.heic").write_bytes(content[: len(content) // 2])
        with pytest.raises(ImageError, match=r"a\.heic: ") as caught:
            open_image(tmp_path / "a.heic")
        assert not str(caught.value).endswith(r"\n")

    def test_without_the_extra_its_name_is_the_advice(self, tmp_path, monkeypatch):
        Image.new("RGB", (64, 48)).save(tmp_path / "a.heic")
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(ImageError, match=r"a\.heic: .*pip install 'cuvler\[heif\]'") as caught:
            open_image(tmp_path / "a.heic")
        assert caught.value.status == "unreadable"

    def test_a_folder_is_unreadable(self, tmp_path):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path)
        assert caught.value.status == "unreadable"

    def test_a_vanished_file_is_missing(self, tmp_path):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / "gone.jpg")
        assert caught.value.status == "missing"


BILINEAR, LANCZOS = Image.Resampling.BILINEAR, Image.Resampling.LANCZOS


def photograph(width, height):
    """A picture with smooth regions, edges in all directions, fine texture and noise."""
    y, x = np.mgrid[:height, :width] / height
    rings = np.sin(60 * np.hypot(x - 0.5, y - 0.4) ** 2) > 0
    shades = np.stack([x * 120, y * 160, 90 + 80 * np.sin(7 * x + 5 * y)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 5, (height, width, 1))
    pixels = shades + 70 * rings[..., None] + 9 * np.sin(900 * x)[..., None] + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def levels_between(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


@pytest.fixture(scope="module")
def photo():
    # Neither side is a multiple of 8: the last column and row of a fraction are partial.
    return photograph(2403, 1805)


class TestOpenResized:
    @pytest.mark.parametrize("kind", sorted(ENCODED))
    @pytest.mark.parametrize("resample", [BILINEAR, LANCZOS])
    def test_the_pixels_are_those_of_opening_and_resizing(self, tmp_path, kind, resample):
        path = tmp_path / "image"
        path.write_bytes(ENCODED[kind])
        whole = open_image(path)
        seen = []
        image, size = open_resized(path, lambda size: seen.append(size) or (4, 3), resample)
        assert seen == [size] == [whole.size]
        np.testing.assert_array_equal(image, whole.resize((4, 3), resample))

    @pytest.mark.parametrize(
        ("size", "target"),
        [((2400, 1600), (300, 200)), ((2400, 1800), (601, 451)), ((2400, 1800), (3000, 2250))],
    )
    def test_images_below_4_megapixels_or_not_much_smaller_are_decoded_whole(
        self, tmp_path, size, target
    ):
        path = tmp_path / "photo.jpg"
        photograph(*size).save(path)
        image, _ = open_resized(path, lambda _: target, BILINEAR)
        np.testing.assert_array_equal(image, open_image(path).resize(target, BILINEAR))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_large_photograph_is_nearly_the_same_at_a_fraction(
        self, tmp_path, photo, orientation
    ):
        path = tmp_path / "photo.jpg"
        save_turned(photo, path, orientation)
        whole = open_image(path)
        for target, resample in (
            ((600, 450), BILINEAR),  # decoded at a half
            ((300, 225), LANCZOS),  # at a quarter
            ((120, 133), BILINEAR),  # at an eighth
        ):
            image, size = open_resized(path, lambda _, target=target: target, resample)
            assert size == whole.size == photo.size
            assert (image.mode, image.size) == ("RGB", target)
            difference = levels_between(image, whole.resize(target, resample))
            assert 0 < difference.mean() < 0.5
            assert difference.max() <= 12

    def test_the_stated_size_decides_on_the_orientation(self, tmp_path, photo):
        path = tmp_path / "photo.jpg"
        save_turned(photo, path, 6)
        stored = photo.size[::-1]
        image, size = open_resized(
            path, lambda size: (size[0] // 6, size[1] // 6), BILINEAR, stored
        )
        assert (size, image.size) == (stored, (stored[0] // 6, stored[1] // 6))
        whole = open_image(path, stored).resize(image.size, BILINEAR)
        assert levels_between(image, whole).mean() < 0.5
        with pytest.raises(ImageError, match=r"2403 x 1805 .* 2403 x 1806") as caught:
            open_resized(path, lambda size: (9, 9), BILINEAR, (2403, 1806))
        assert caught.value.status == "wrong_size"

    def test_decoded_photographs_are_kept_while_there_is_memory(self, tmp_path, photo):
        path = tmp_path / "photo.jpg"
        save_turned(photo, path, 6)
        targets = (300, 225), (290, 220), (600, 450)  # at a quarter, twice, and at a half
        expected = [open_resized(path, lambda _, t=t: t, BILINEAR)[0] for t in targets]
        enough = DecodedImages(602 * 452 * 3 + 1203 * 904 * 3)
        for _ in range(2):
            for target, image in zip(targets, expected, strict=True):
                found, size = open_resized(path, lambda _, t=target: t, BILINEAR, None, enough)
                assert size == photo.size
                np.testing.assert_array_equal(found, image)
            # Only its header is read now.
            path.write_bytes(path.read_bytes()[:100_000])
        little = DecodedImages(602 * 452 * 3 - 1)
        with pytest.raises(ImageError):
            open_resized(path, lambda _: targets[0], BILINEAR, None, little)

    def test_grey_and_damaged_photographs(self, tmp_path, photo):
        path = tmp_path / "photo.jpg"
        photo.convert("L").save(path)
        image, _ = open_resized(path, lambda _: (300, 225), BILINEAR)
        assert image.mode == "RGB"
        assert levels_between(image, open_image(path).resize((300, 225), BILINEAR)).max() <= 12
        path.write_bytes(path.read_bytes()[:100_000])
        with pytest.raises(ImageError) as caught:
            open_resized(path, lambda _: (300, 225), BILINEAR)
        assert caught.value.status == "unreadable"
