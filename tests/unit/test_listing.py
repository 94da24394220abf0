import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvler.errors import DataError
from cuvler.listing import (
    INITIAL_STATE,
    list_images,
    listed_images,
    listed_state,
    listing_sha256,
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


class TestListing:
    def test_any_depth_and_case_and_only_images(self, tmp_path):
        touch(tmp_path, "b.JPG", "a/x.jpeg", "a/deep/er/y.Png", "z.webp", "notes.txt", "a/jpg")
        touch(tmp_path, ".hidden.jpg", "._b.jpg", ".thumbnails/t.jpg")
        listing = list_images(tmp_path)
        assert listing["file_name"].tolist() == ["a/deep/er/y.Png", "a/x.jpeg", "b.JPG", "z.webp"]
        assert listing["image_id"].tolist() == [1, 2, 3, 4]

    def test_what_is_passed_over_is_counted(self, tmp_path, caplog):
        touch(tmp_path, "1.jpg", "2.CR2", "sub/3.cr2", "4.mp4", ".hidden", "._1.jpg", "README")
        os.mkfifo(tmp_path / "pipe.jpg")
        assert list_images(tmp_path)["file_name"].tolist() == ["1.jpg"]
        [message] = caplog.messages
        skipped = message.partition(": 1 images; skipped: ")[2].split(", ")
        assert sorted(skipped) == [
            *("1 .mp4", "1 pipe/socket/device", "1 without extension", "2 .cr2", "2 hidden")
        ]

    def test_odd_names_survive_the_file(self, tmp_path, odd_names):
        touch(tmp_path / "data", *odd_names)
        write_listing(list_images(tmp_path / "data"), tmp_path / "listing.parquet")
        assert sorted(read_listing(tmp_path / "listing.parquet")["file_name"]) == sorted(odd_names)

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
        with as_plain_user(), pytest.raises(DataError, match=r"closed: cannot be read"):
            list_images(public_folder)

    def test_names_of_one_stem_are_two_images(self, tmp_path):
        touch(tmp_path, "1.jpg", "1.png", "b/1.jpg")
        assert list_images(tmp_path)["file_name"].tolist() == ["1.jpg", "1.png", "b/1.jpg"]
        with pytest.raises(DataError, match=r"1\.jpg and 1\.png: .*ids must be unique"):
            list_images(tmp_path, ids="digits")

    def test_the_digest_identifies_the_dataset(self, tmp_path):
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

    def test_ground_truth_lists_the_images(self, tmp_path):
        images = [{"id": 9, "file_name": "b.jpg"}, {"id": 3, "file_name": "not/there.jpg"}]
        listing = list_images(
            tmp_path, ground_truth=coco(tmp_path / "gt.json", images), ids="ground_truth"
        )
        assert listing["image_id"].tolist() == [3, 9]
        assert listing["file_name"].tolist() == ["not/there.jpg", "b.jpg"]

    @pytest.mark.parametrize("ids", ["order", "digits", "ground_truth"])
    def test_sizes_that_ground_truth_states_are_listed(self, tmp_path, ids):
        images = [
            {"id": 9, "file_name": "9.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "3.jpg", "width": 30, "height": 40},
            {"id": 5, "file_name": "5.jpg", "width": None, "height": None},
        ]
        listing = list_images(tmp_path, ground_truth=coco(tmp_path / "gt.json", images), ids=ids)
        write_listing(listing, tmp_path / "l.parquet")
        numbers = [1, 2, 3] if ids == "order" else [3, 5, 9]
        assert listed_images(read_listing(tmp_path / "l.parquet")) == [
            (numbers[0], "3.jpg", (30, 40)),
            (numbers[1], "5.jpg", None),
            (numbers[2], "9.jpg", (40, 30)),
        ]
        turned = [image | {"width": image["height"], "height": image["width"]} for image in images]
        other = list_images(tmp_path, ground_truth=coco(tmp_path / "gt.json", turned), ids=ids)
        assert listing_sha256(other) != listing_sha256(listing)

    def test_without_sizes_there_are_no_columns_of_them(self, tmp_path):
        touch(tmp_path, "1.jpg")
        ground_truth = coco(tmp_path / "gt.json", [{"id": 1, "file_name": "1.jpg"}])
        for listing in (list_images(tmp_path), list_images(tmp_path, ground_truth=ground_truth)):
            assert list(listing.columns) == ["image_id", "file_name", "shard"]
            assert listed_images(listing) == [(1, "1.jpg", None)]

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
    def test_broken_ground_truth_is_named(self, tmp_path, images):
        with pytest.raises(DataError):
            list_images(
                tmp_path, ground_truth=coco(tmp_path / "gt.json", images), ids="ground_truth"
            )

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

    @pytest.mark.parametrize("sizes", [False, True])
    def test_a_flipped_bit_never_changes_a_listing(self, tmp_path, sizes):
        images = [
            {"id": n, "file_name": f"{n * 77}.jpg"}
            | ({"width": n, "height": 9} if sizes and n else {})
            for n in range(40)
        ]
        ground_truth = coco(tmp_path / "gt.json", images)
        whole = list_images(tmp_path, ground_truth=ground_truth, ids="ground_truth", shards=3)
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


class TestListedState:
    @pytest.fixture
    def root(self, tmp_path):
        touch(tmp_path / "photos", "a.jpg", "b/c.jpg")
        return tmp_path / "photos"

    def test_it_changes_with_the_images_until_they_are_listed(self, tmp_path, root):
        path = tmp_path / "l.parquet"
        assert listed_state(path, root) == INITIAL_STATE
        write_listing(list_images(root), path)
        assert listed_state(path, root) == INITIAL_STATE
        states = {INITIAL_STATE}
        for name in ("d.jpg", "b/e.jpg"):
            touch(root, name)
            state = listed_state(path, root)
            assert state not in states
            states.add(state)
        # The workflow gives the state to the job.
        write_listing(list_images(root), path, state=state)
        assert listed_state(path, root) == state
        (root / "a.jpg").unlink()
        assert listed_state(path, root) not in states

    def test_a_root_that_is_not_there_keeps_it(self, tmp_path, root):
        path = tmp_path / "l.parquet"
        write_listing(list_images(root), path, state="x")
        root.rename(tmp_path / "elsewhere")
        assert listed_state(path, root) == "x"
        root.mkdir()  # a mount point
        assert listed_state(path, root) == "x"

    def test_results_among_the_images_are_refused(self, tmp_path, root):
        with pytest.raises(DataError, match=r"photos: contains the results .*l\.parquet"):
            listed_state(root / "results/images/l.parquet", root)
        assert listed_state(root / ".results/images/l.parquet", root) == INITIAL_STATE

    def test_a_damaged_listing_is_named(self, tmp_path, root):
        (tmp_path / "l.parquet").write_bytes(b"PAR1 but no more")
        with pytest.raises(DataError, match=r"l\.parquet"):
            listed_state(tmp_path / "l.parquet", root)

    def test_readers_do_not_carry_the_folders(self, tmp_path, root):
        write_listing(list_images(root), tmp_path / "l.parquet")
        assert read_listing(tmp_path / "l.parquet").attrs == {}
