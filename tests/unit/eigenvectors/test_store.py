import zipfile

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.eigenvectors.store import (
    STATUSES,
    ShardEigenvectors,
    open_eigenvectors,
    read_eigenvectors,
    write_eigenvectors,
)
from cuvler.errors import DataError
from cuvler.listing import listing_sha256

SETTINGS = {"backbone": "pixels_p16", "tau": 0.15, "k": 2}


def shard(n=5, k=2, grid=(4, 3), seed=0):
    rng = np.random.default_rng(seed)
    filled = ShardEigenvectors.empty(np.arange(10, 10 + n, dtype=np.int64), k, grid)
    filled.status[:] = STATUSES.index("ok")
    filled.eigenvectors[:] = rng.standard_normal(filled.eigenvectors.shape)
    return filled


def listing(n=5):
    names = [f"folder/{i}.jpg" for i in range(n)]
    return pd.DataFrame({"image_id": np.arange(10, 10 + n), "file_name": names})


def test_gives_back_what_was_written(tmp_path):
    written = shard()
    written.status[1] = STATUSES.index("unreadable")
    written.dense[3] = True
    path = tmp_path / "0.zarr.zip"
    write_eigenvectors(path, written, SETTINGS)
    with open_eigenvectors(path, image_ids=written.image_id, settings=SETTINGS) as store:
        assert len(store) == 5
        assert store.grid == (4, 3)
        assert store.backbone == "pixels_p16"
        assert store.status == ("ok", "unreadable", "ok", "ok", "ok")
        np.testing.assert_array_equal(store.dense, written.dense)
        np.testing.assert_array_equal(store.image_ids, written.image_id)
        for index in (4, 0, 2):
            np.testing.assert_array_equal(store.vector(index), written.eigenvectors[index])


def test_any_zarr_v3_reader_can_read_it(tmp_path):
    write_eigenvectors(tmp_path / "0.zarr.zip", shard(), SETTINGS)
    group = zarr.open_group(zarr.storage.ZipStore(tmp_path / "0.zarr.zip"), mode="r")
    assert group.metadata.zarr_format == 3
    assert group.attrs["backbone"] == "pixels_p16"
    np.testing.assert_array_equal(group["eigenvectors"][:], shard().eigenvectors)


def test_an_image_is_missing_until_it_is_entered(tmp_path):
    empty = ShardEigenvectors.empty(np.arange(3, dtype=np.int64), 1, (2, 2))
    write_eigenvectors(tmp_path / "0.zarr.zip", empty, SETTINGS)
    store = open_eigenvectors(tmp_path / "0.zarr.zip")
    assert store.status == ("missing",) * 3
    assert np.isnan(store.vector(1)).all()


def test_a_shard_without_images(tmp_path):
    write_eigenvectors(tmp_path / "0.zarr.zip", shard(n=0), SETTINGS)
    assert len(open_eigenvectors(tmp_path / "0.zarr.zip")) == 0
    assert list(read_eigenvectors([tmp_path / "0.zarr.zip"], listing(0))) == []


def test_many_chunks_read_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr("cuvler.eigenvectors.store._CHUNK_BYTES", 2 * 2 * 4 * 3 * 4)
    written = shard(n=7)
    write_eigenvectors(tmp_path / "0.zarr.zip", written, SETTINGS)
    names = zipfile.ZipFile(tmp_path / "0.zarr.zip").namelist()
    assert sum(name.startswith("eigenvectors/c/") for name in names) == 4
    store = open_eigenvectors(tmp_path / "0.zarr.zip")
    for index in (6, 0, 5, 1, 2):
        np.testing.assert_array_equal(store.vector(index), written.eigenvectors[index])


def test_equal_content_gives_equal_bytes(tmp_path, monkeypatch):
    write_eigenvectors(tmp_path / "a.zarr.zip", shard(), SETTINGS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_eigenvectors(tmp_path / "b.zarr.zip", shard(), SETTINGS)
    assert (tmp_path / "a.zarr.zip").read_bytes() == (tmp_path / "b.zarr.zip").read_bytes()


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "0.zarr.zip"
    write_eigenvectors(path, shard(), SETTINGS)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"0\.zarr\.zip: damaged "):
        open_eigenvectors(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "0.zarr.zip"
    write_eigenvectors(path, shard(), SETTINGS)
    return path


@settings(max_examples=150)
@given(data=st.data())
def test_a_flipped_bit_never_changes_what_is_read(whole, data):
    content = bytearray(whole.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    flipped = whole.with_name("flipped.zarr.zip")
    flipped.write_bytes(content)
    try:
        with open_eigenvectors(flipped, settings=SETTINGS) as store:
            read = [store.vector(index) for index in range(len(store))]
            values = (store.image_ids, store.status, store.dense)
    except DataError:
        return
    np.testing.assert_array_equal(read, shard().eigenvectors)
    np.testing.assert_array_equal(values[0], shard().image_id)
    assert values[1] == ("ok",) * 5
    assert not values[2].any()


def test_a_lost_chunk_is_noticed(tmp_path):
    write_eigenvectors(tmp_path / "whole.zarr.zip", shard(), SETTINGS)
    with (
        zipfile.ZipFile(tmp_path / "whole.zarr.zip") as old,
        zipfile.ZipFile(tmp_path / "0.zarr.zip", "w") as new,
    ):
        for name in old.namelist():
            if name != "dense/c/0":
                new.writestr(name, old.read(name))
    with pytest.raises(DataError, match="dense"):
        open_eigenvectors(tmp_path / "0.zarr.zip")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"9\.zarr\.zip: no such file"):
        open_eigenvectors(tmp_path / "9.zarr.zip")


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "0.zarr.zip", "w") as archive:
        archive.writestr("holiday.txt", "sun")
    with pytest.raises(DataError, match="damaged"):
        open_eigenvectors(tmp_path / "0.zarr.zip")


def test_other_images_and_other_settings_are_refused(tmp_path):
    path = tmp_path / "0.zarr.zip"
    write_eigenvectors(path, shard(), SETTINGS)
    with pytest.raises(DataError, match=r"0\.zarr\.zip: .*listing"):
        open_eigenvectors(path, image_ids=np.arange(5))
    with pytest.raises(DataError, match=r"tau=0\.15.* 0\.2"):
        open_eigenvectors(path, settings={"tau": 0.2})
    with pytest.raises(DataError, match="colour=None"):
        open_eigenvectors(path, settings={"colour": "red"})


def test_reads_all_backbones_of_a_shard_together(tmp_path):
    first, second = shard(seed=1), shard(seed=2, grid=(6, 6))
    first.status[1] = STATUSES.index("eigensolver_failed")
    second.status[1] = STATUSES.index("missing")
    second.status[3] = STATUSES.index("eigensolver_failed")
    write_eigenvectors(tmp_path / "a.zarr.zip", first, {"backbone": "a", "tau": 0.15})
    # Each backbone may have its own tau.
    write_eigenvectors(tmp_path / "b.zarr.zip", second, {"backbone": "b", "tau": 0.6})
    paths = [tmp_path / "a.zarr.zip", tmp_path / "b.zarr.zip"]
    images = list(read_eigenvectors(paths, listing()))
    assert [image.image_id for image in images] == [10, 11, 12, 13, 14]
    assert images[2].file_name == "folder/2.jpg"
    statuses = [image.status for image in images]
    assert statuses == ["ok", "missing", "ok", "eigensolver_failed", "ok"]
    assert images[1].vectors == images[3].vectors == {}
    np.testing.assert_array_equal(images[2].vectors["a"], first.eigenvectors[2])
    np.testing.assert_array_equal(images[4].vectors["b"], second.eigenvectors[4])


@pytest.mark.parametrize("changed", [{"problem": "generalized"}, {"k": 3}])
def test_backbones_of_different_settings_are_not_mixed(tmp_path, changed):
    write_eigenvectors(tmp_path / "a.zarr.zip", shard(), SETTINGS | {"backbone": "a"})
    write_eigenvectors(tmp_path / "b.zarr.zip", shard(), SETTINGS | {"backbone": "b"} | changed)
    ((name, value),) = changed.items()
    with pytest.raises(DataError, match=rf"b\.zarr\.zip: .*{name}={value!r}, .*a\.zarr"):
        list(read_eigenvectors([tmp_path / f"{name}.zarr.zip" for name in "ab"], listing()))


def test_a_shard_of_another_dataset_with_the_same_ids_is_refused(tmp_path):
    other = listing().assign(file_name=[f"elsewhere/{i}.jpg" for i in range(5)])
    path = tmp_path / "0.zarr.zip"
    write_eigenvectors(path, shard(), SETTINGS | {"images_sha256": listing_sha256(other)})
    assert len(list(read_eigenvectors([path], other))) == 5
    with pytest.raises(DataError, match=r"0\.zarr\.zip: .*another dataset"):
        list(read_eigenvectors([path], listing()))


def test_a_backbone_votes_once(tmp_path):
    for name in "ab":
        write_eigenvectors(tmp_path / f"{name}.zarr.zip", shard(), SETTINGS)
    with pytest.raises(DataError, match=r"b\.zarr\.zip: .*pixels_p16.*a\.zarr"):
        list(read_eigenvectors([tmp_path / f"{name}.zarr.zip" for name in "ab"], listing()))
