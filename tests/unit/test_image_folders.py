import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvler.errors import DataError
from cuvler.image_folders import find_images, images_digest, may_differ

LONG_AGO = 1_600_000_000


def touch(root, *names):
    """Create empty files in folders that were last changed long ago."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder, _, _ in os.walk(root):
        os.utime(folder, (LONG_AGO, LONG_AGO))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    touch(folder, "a.jpg", "b/c.jpg", "b/d/e.png", "empty/notes.txt")
    return folder


def test_every_folder_searched_has_a_state(root):
    touch(root, ".hidden/x.jpg")
    images, folders = find_images(root)
    assert images == ["a.jpg", "b/c.jpg", "b/d/e.png"]
    assert list(folders) == ["", "b", "b/d", "empty"]
    assert [bool(state.digest) for state in folders.values()] == [True, True, True, False]


def test_the_same_folders_do_not_differ(root):
    assert not may_differ(root, find_images(root)[1])


@pytest.mark.parametrize("name", ["z.jpg", "b/z.JPG", "b/d/z.png", "empty/z.jpg", "new/deep/z.jpg"])
def test_an_added_image_is_noticed(root, name):
    before = find_images(root)[1]
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
    assert may_differ(root, before)
    assert images_digest(find_images(root)[1]) != images_digest(before)


@pytest.mark.parametrize("name", ["a.jpg", "b/c.jpg", "b/d/e.png"])
def test_a_removed_or_renamed_image_is_noticed(root, name):
    before = find_images(root)[1]
    (root / name).rename(root / name.replace(".", "2."))
    assert may_differ(root, before)
    (root / name.replace(".", "2.")).unlink()
    assert may_differ(root, before)
    assert images_digest(find_images(root)[1]) != images_digest(before)


def test_a_removed_folder_is_noticed_if_it_had_images(root):
    before = find_images(root)[1]
    (root / "empty/notes.txt").unlink()
    (root / "empty").rmdir()
    assert not may_differ(root, before)
    (root / "b/d/e.png").unlink()
    (root / "b/d").rmdir()
    assert may_differ(root, before)


def test_other_files_and_folders_make_no_difference(root):
    before = find_images(root)[1]
    for name in ("notes.txt", "b/.x.jpg", ".thumbnails/x.jpg", "results/log.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    os.utime(root / "b/d")
    assert not may_differ(root, before)
    assert images_digest(find_images(root)[1]) == images_digest(before)


def test_a_new_link_to_a_searched_folder_adds_no_images(root):
    before = find_images(root)[1]
    (root / "link").symlink_to(root / "b")
    assert images_digest(find_images(root)[1]) == images_digest(before)


def test_a_change_within_the_clocks_resolution_is_noticed(root):
    (root / "b/new.jpg").touch()  # now
    before = find_images(root)[1]
    assert before["b"].mtime_ns == 0
    time = (root / "b").stat().st_mtime_ns
    (root / "b/newer.jpg").touch()
    os.utime(root / "b", ns=(time, time))
    assert may_differ(root, before)


def test_only_folders_that_changed_are_read(root, monkeypatch):
    before = find_images(root)[1]
    (root / "b/x.txt").touch()
    read = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(path) or scandir(path))
    assert not may_differ(root, before)
    assert read == [root / "b"]


def test_a_folder_that_may_not_be_read_is_named(public_folder, as_plain_user):
    touch(public_folder, "a/x.jpg")
    before = find_images(public_folder)[1]
    (public_folder / "a/y.jpg").touch()
    (public_folder / "a").chmod(0)
    with as_plain_user(), pytest.raises(DataError, match=r"a: cannot be read"):
        may_differ(public_folder, before)


NAMES = st.sets(
    st.tuples(st.sampled_from(["", "x/", "x/y/", "z/"]), st.sampled_from("abcd")).map("".join)
)


@given(before=NAMES, after=NAMES)
def test_the_digest_identifies_the_names(tmp_path_factory, before, after):
    digests = []
    for names in (before, after):
        folder = tmp_path_factory.mktemp("data")
        touch(folder, *(f"{name}.jpg" for name in names))
        digests.append(images_digest(find_images(folder)[1]))
    assert (digests[0] == digests[1]) == (before == after)
    assert (digests[0] == "") == (not before)
