import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cuvler.errors import DataError, ImageError
from cuvler.images import list_images, open_image, read_listing, write_listing


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
        [[], [{"id": 1}], [{"id": "one", "file_name": "a.jpg"}], [{"id": 1, "file_name": "a"}] * 2],
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

    def test_a_damaged_listing_is_named(self, tmp_path):
        (tmp_path / "l.parquet").write_bytes(b"PAR1 but no more")
        with pytest.raises(DataError, match=r"l\.parquet"):
            read_listing(tmp_path / "l.parquet")


class TestOpenImage:
    @pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1", "I", "I;16", "F"])
    def test_every_mode_becomes_rgb(self, tmp_path, mode):
        extension = "tif" if mode in ("CMYK", "F", "I") else "png"
        Image.new("L", (5, 4), 128).convert(mode).save(tmp_path / f"image.{extension}")
        image = open_image(tmp_path / f"image.{extension}")
        assert (image.mode, image.size) == ("RGB", (5, 4))

    def test_16_bit_values_are_scaled_not_clipped(self, tmp_path):
        ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
        Image.fromarray(ramp).save(tmp_path / "ramp.png")
        pixels = np.asarray(open_image(tmp_path / "ramp.png"))[..., 0]
        np.testing.assert_allclose(pixels.ravel(), np.arange(256), atol=1)

    def test_exif_orientation_is_applied(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to show it upright
        Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
        assert open_image(tmp_path / "turned.jpg").size == (20, 40)

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

    def test_a_folder_is_unreadable(self, tmp_path):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path)
        assert caught.value.status == "unreadable"

    def test_a_vanished_file_is_missing(self, tmp_path):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / "gone.jpg")
        assert caught.value.status == "missing"
