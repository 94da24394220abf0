import os
import socket
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvler.errors import DataError
from cuvler.image_files import find_files, output_stems


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_of(files):
    return [(file.name, file.stem) for file in files]


def test_a_folder_is_searched_at_any_depth_and_without_the_outputs(tmp_path):
    touch(tmp_path, "b.JPG", "x.jpg/a.heic", "found/b.masks.png", ".git/c.png", "._b.JPG")
    files = find_files([tmp_path], without=tmp_path / "found")
    assert names_of(files) == [("b.JPG", "b"), ("x.jpg/a.heic", "x.jpg/a")]
    assert [file.path for file in files] == [tmp_path / "b.JPG", tmp_path / "x.jpg/a.heic"]


def test_each_image_once_in_the_order_given(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "sub/c.jpg")
    files = find_files([tmp_path / "b.jpg", tmp_path, tmp_path / "sub/../a.jpg"])
    assert [file.name for file in files] == ["b.jpg", "a.jpg", "sub/c.jpg"]


def test_images_of_two_folders_are_named_from_the_common_one(tmp_path):
    touch(tmp_path, "one/1/x.jpg", "one/2/x.jpg", "one/2/y.jpg")
    files = find_files([tmp_path / "one/1", tmp_path / "one/2"])
    assert [file.name for file in files] == ["1/x.jpg", "2/x.jpg", "2/y.jpg"]


def test_loops_pipes_and_sockets(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        assert [file.name for file in find_files([tmp_path])] == ["a.jpg", "self.jpg"]


def test_what_cannot_be_processed_is_refused_before_the_start(tmp_path):
    with pytest.raises(DataError, match="no image files"):
        find_files([tmp_path])
    touch(tmp_path, "a.jpg")
    with pytest.raises(DataError, match="folder to write to"):
        find_files([tmp_path], without=tmp_path / "sub/..")
    with pytest.raises(DataError, match="not UTF-8"):
        find_files([os.fsdecode(b"photo\xe9.jpg")])


def test_extensions_are_kept_where_stems_meet():
    names = ["a.jpg", "a.jpeg", "a.jpg.png", "b.jpg", "sub/a.jpg"]
    assert output_stems(names) == ["a.jpg", "a.jpeg", "a.jpg.png", "b", "sub/a"]


PARTS = st.text("ab.é\n", min_size=1, max_size=6).filter(lambda part: set(part) != {"."})
LONG = st.integers(0, 250).map("é".__mul__)


@given(st.lists(st.tuples(st.sampled_from(["", "s/"]), LONG, PARTS).map("".join), unique=True))
def test_outputs_never_meet_and_fit(names):
    names = [name for name in names if len(PurePosixPath(name).name.encode()) <= 255]
    stems = output_stems(names)
    assert len(set(stems)) == len(names)
    for name, stem in zip(names, stems, strict=True):
        assert PurePosixPath(stem).parent == PurePosixPath(name).parent
        assert len(PurePosixPath(stem).name.encode()) <= 190
