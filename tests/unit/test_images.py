import contextlib
import errno
import io
import json
import os
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cuvler.errors import DataError, ImageError
from cuvler.images import (
    image_size,
    list_images,
    listing_sha256,
    open_image,
    read_listing,
    write_listing,
)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def coco(path, images):
    path.write_text(json.dumps({"images": images}))
    return path


ODD_NAMES = [
    "with space.jpg",
    "qu'ote\".jpg",
    "new\nline.jpg",
    "-dash.jpg",
    "ünï日本.jpg",
    "$(x).jpg",
]


class TestListing:
    def test_any_depth_and_case_and_only_images(self, tmp_path):
        touch(tmp_path, "b.JPG", "a/x.jpeg", "a/deep/er/y.Png", "z.webp", "notes.txt", "a/jpg")
        touch(tmp_path, ".hidden.jpg", "._b.jpg", ".thumbnails/t.jpg")
        listing = list_images(tmp_path)
        assert listing["file_name"].tolist() == ["a/deep/er/y.Png", "a/x.jpeg", "b.JPG", "z.webp"]
        assert listing["image_id"].tolist() == [1, 2, 3, 4]

    def test_what_is_passed_over_is_counted(self, tmp_path, caplog):
        touch(tmp_path, "1.jpg", "2.HEIC", "sub/3.heic", "4.mp4", ".hidden", "README")
        assert list_images(tmp_path)["file_name"].tolist() == ["1.jpg"]
        [message] = caplog.messages
        assert message.endswith(": 2 .heic, 1 .mp4, 1 no extension")

    def test_odd_names_survive_the_file(self, tmp_path):
        touch(tmp_path / "data", *ODD_NAMES)
        write_listing(list_images(tmp_path / "data"), tmp_path / "listing.parquet")
        assert sorted(read_listing(tmp_path / "listing.parquet")["file_name"]) == sorted(ODD_NAMES)

    def test_a_name_that_is_not_utf8_is_named(self, tmp_path):
        (tmp_path / "data").mkdir()
        open(os.fsencode(tmp_path / "data") + b"/\xff.jpg", "w").close()
        with pytest.raises(DataError, match="udcff"):
            list_images(tmp_path / "data")

    def test_links_are_followed_once(self, tmp_path):
        touch(tmp_path / "elsewhere", "a.jpg")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "data")
        assert list_images(tmp_path / "data")["file_name"].tolist() == ["link/a.jpg"]

    def test_a_link_to_nothing_is_listed(self, tmp_path):
        (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
        assert list_images(tmp_path)["file_name"].tolist() == ["gone.jpg"]

    def test_a_folder_that_may_not_be_read_is_named(self, public_folder, as_plain_user):
        touch(public_folder, "open/a.jpg", "closed/b.jpg")
        (public_folder / "closed").chmod(0)
        with as_plain_user(), pytest.raises(DataError, match=r"closed: cannot be read .*left out"):
            list_images(public_folder)

    def test_names_of_one_stem_are_two_images(self, tmp_path):
        touch(tmp_path, "1.jpg", "1.png", "b/1.jpg")
        assert list_images(tmp_path)["file_name"].tolist() == ["1.jpg", "1.png", "b/1.jpg"]
        with pytest.raises(DataError, match=r"1\.jpg and 1\.png: .*ids must be unique"):
            list_images(tmp_path, ids="digits")

    def test_the_digest_tells_datasets_apart(self, tmp_path):
        touch(tmp_path, "x/1.jpg", "x/2.jpg", "y/1.jpg", "y/12.jpg")
        listings = [list_images(tmp_path / folder) for folder in "xyx"]
        digests = [listing_sha256(listing) for listing in listings]
        assert digests[0] == digests[2] != digests[1]
        assert listing_sha256(listings[0].iloc[:1]) != digests[0]

    def test_ids_from_digits(self, tmp_path):
        touch(tmp_path, "n02/n02_7.JPEG", "n01440764/n01440764_10026.JPEG")
        listing = list_images(tmp_path, ids="digits")
        assert dict(zip(listing["image_id"], listing["file_name"], strict=True)) == {
            27: "n02/n02_7.JPEG",
            144076410026: "n01440764/n01440764_10026.JPEG",
        }
        assert listing["image_id"].is_monotonic_increasing

    def test_ids_from_digits_must_be_there_and_differ(self, tmp_path):
        touch(tmp_path, "a.jpg")
        with pytest.raises(DataError, match=r"a\.jpg"):
            list_images(tmp_path, ids="digits")
        (tmp_path / "a.jpg").unlink()
        touch(tmp_path, "x/1.jpg", "y/1.jpg")
        with pytest.raises(DataError, match=r"x/1.jpg and y/1.jpg.*id 1"):
            list_images(tmp_path, ids="digits")

    def test_annotations_are_the_listing(self, tmp_path):
        images = [{"id": 9, "file_name": "b.jpg"}, {"id": 3, "file_name": "not/there.jpg"}]
        listing = list_images(
            tmp_path, annotations=coco(tmp_path / "gt.json", images), ids="annotations"
        )
        assert listing["image_id"].tolist() == [3, 9]
        assert listing["file_name"].tolist() == ["not/there.jpg", "b.jpg"]

    @pytest.mark.parametrize(
        "images",
        [
            [],
            [7],
            [{"id": 1}],
            [{"id": 1, "file_name": None}],
            [{"id": "one", "file_name": "a.jpg"}],
            [{"id": 1, "file_name": "a"}] * 2,
        ],
    )
    def test_broken_annotations_are_named(self, tmp_path, images):
        with pytest.raises(DataError):
            list_images(tmp_path, annotations=coco(tmp_path / "gt.json", images), ids="annotations")

    def test_an_empty_folder_is_an_error(self, tmp_path):
        with pytest.raises(DataError, match="no image files"):
            list_images(tmp_path)

    @given(images=st.integers(1, 50), shards=st.integers(1, 60))
    def test_shards_are_consecutive_and_even(self, tmp_path_factory, images, shards):
        root = tmp_path_factory.mktemp("data")
        touch(root, *(f"{n:03d}.jpg" for n in range(images)))
        shard = list_images(root, shards=shards)["shard"]
        assert shard.is_monotonic_increasing
        sizes = np.bincount(shard, minlength=shards)
        assert sizes.sum() == images
        assert np.ptp(sizes) <= 1

    def test_one_shard_is_read_alone(self, tmp_path):
        touch(tmp_path / "data", *(f"{n}.jpg" for n in range(5)))
        write_listing(list_images(tmp_path / "data", shards=2), tmp_path / "l.parquet")
        assert read_listing(tmp_path / "l.parquet", shard=1)["file_name"].tolist() == [
            "3.jpg",
            "4.jpg",
        ]

    def test_a_flipped_bit_never_changes_a_listing(self, tmp_path):
        touch(tmp_path / "data", *(f"{n * 77}.jpg" for n in range(40)))
        whole = list_images(tmp_path / "data", shards=3)
        path = tmp_path / "l.parquet"
        write_listing(whole, path)
        content = path.read_bytes()
        refused = 0
        for position in range(0, len(content), 3):
            path.write_bytes(
                content[:position]
                + bytes([content[position] ^ 1 << position % 8])
                + content[position + 1 :]
            )
            try:
                found = read_listing(path)
            except DataError:
                refused += 1
            else:
                assert found.equals(whole)
        assert refused > len(content) / 6

    def test_a_damaged_listing_is_named(self, tmp_path):
        (tmp_path / "l.parquet").write_bytes(b"PAR1 but no more")
        with pytest.raises(DataError, match=r"l\.parquet"):
            read_listing(tmp_path / "l.parquet")


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


ENCODED = {kind: encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}


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

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("extension", ["png", "webp"])
    def test_exif_orientation_is_applied(self, tmp_path, orientation, extension):
        upright = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))
        save_turned(upright, tmp_path / f"a.{extension}", orientation)
        np.testing.assert_array_equal(open_image(tmp_path / f"a.{extension}"), upright)
        assert image_size(tmp_path / f"a.{extension}") == upright.size

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

    def test_an_image_of_400_million_pixels_is_refused_by_its_header(self, tmp_path):
        Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
        with pytest.raises(ImageError, match=r"huge\.png: too large, .*400000000 pixels") as caught:
            open_image(tmp_path / "huge.png")
        assert caught.value.status == "unreadable"

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

        monkeypatch.setattr(Image, "open", failing)
        with pytest.raises(OSError, match=os.strerror(code)):
            open_image(tmp_path / "a.png")

    def test_a_link_to_nothing_is_missing(self, tmp_path):
        (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / "a.jpg")
        assert caught.value.status == "missing"

    @pytest.mark.parametrize("name", [*ODD_NAMES, "link.jpg"])
    def test_odd_names_are_opened(self, tmp_path, name):
        real = tmp_path / "real"
        real.mkdir()
        Image.new("RGB", (4, 3)).save(real / "a.jpg")
        (tmp_path / name).symlink_to(real / "a.jpg")
        assert open_image(tmp_path / name).size == (4, 3)

    def test_a_folder_is_unreadable(self, tmp_path):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path)
        assert caught.value.status == "unreadable"

    def test_a_vanished_file_is_missing(self, tmp_path):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / "gone.jpg")
        assert caught.value.status == "missing"
