import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.download import unpack
from cuvler.errors import DataError

FILES = {"VOCdevkit/VOC2007/a.txt": b"a", "VOCdevkit/VOC2007/sub/b.txt": b"b", "readme": b"r"}


def write_zip(path, files, link=None):
    with zipfile.ZipFile(path, "w") as stream:
        for name, content in files.items():
            stream.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            stream.writestr(entry, "/etc")


def write_tar(path, files, link=None, mode="w:gz"):
    with tarfile.open(path, mode) as stream:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            stream.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
            stream.addfile(entry)


WRITERS = pytest.mark.parametrize("write", [write_zip, write_tar])


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@WRITERS
def test_files_come_into_place_beside_what_is_there(write, tmp_path):
    write(tmp_path / "archive", FILES)
    (tmp_path / "data/VOCdevkit/VOC2007").mkdir(parents=True)
    (tmp_path / "data/VOCdevkit/VOC2007/a.txt").write_text("old")
    (tmp_path / "data/mine.txt").write_text("mine")
    assert unpack(tmp_path / "archive", tmp_path / "data") == 3
    assert tree(tmp_path / "data") == FILES | {"mine.txt": b"mine"}


@WRITERS
def test_leading_folders_are_left_out(write, tmp_path):
    write(tmp_path / "archive", FILES)
    assert unpack(tmp_path / "archive", tmp_path / "data", strip=1) == 2
    assert tree(tmp_path / "data") == {"VOC2007/a.txt": b"a", "VOC2007/sub/b.txt": b"b"}


@WRITERS
def test_files_that_get_one_name_are_refused(write, tmp_path):
    write(tmp_path / "archive", {"train/a.txt": b"1", "val/a.txt": b"2"})
    with pytest.raises(DataError, match=r"archive: .*'train/a\.txt' and 'val/a\.txt'"):
        unpack(tmp_path / "archive", tmp_path / "data", strip=1)
    assert tree(tmp_path / "data") == {}
    assert unpack(tmp_path / "archive", tmp_path / "data") == 2


@WRITERS
@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt"])
def test_names_that_lead_out_are_refused_and_nothing_is_left(write, tmp_path, name):
    write(tmp_path / "archive", {"fine.txt": b"", name: b"bad"})
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "archive", tmp_path / "data")
    assert tree(tmp_path) == {"archive": (tmp_path / "archive").read_bytes()}


@WRITERS
def test_links_are_refused(write, tmp_path):
    write(tmp_path / "archive", {"fine.txt": b""}, link="etc")
    with pytest.raises(DataError, match="'etc' is a link"):
        unpack(tmp_path / "archive", tmp_path / "data")
    assert tree(tmp_path / "data") == {}


def test_a_link_cannot_lead_out_once_folders_are_stripped(tmp_path):
    """Inside the archive top/up stays inside; without its first folder it would lead out."""
    with tarfile.open(tmp_path / "a.tar", "w") as stream:
        link = tarfile.TarInfo("top/up")
        link.type, link.linkname = tarfile.SYMTYPE, "../"
        stream.addfile(link)
        entry = tarfile.TarInfo("x/up/workflow/Snakefile")
        entry.size = 3
        stream.addfile(entry, io.BytesIO(b"bad"))
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/Snakefile").write_text("good")
    with pytest.raises(DataError, match="'top/up' is a link"):
        unpack(tmp_path / "a.tar", tmp_path / "data", strip=1)
    assert (tmp_path / "workflow/Snakefile").read_text() == "good"


@WRITERS
def test_a_link_that_was_there_is_not_followed_out(write, tmp_path):
    write(tmp_path / "archive", {"VOC2007/a.txt": b"a", "b.txt": b"b"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/VOC2007").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"leads out of it: .*VOC2007/a\.txt .*elsewhere"):
        unpack(tmp_path / "archive", tmp_path / "data")
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not (tmp_path / "data/b.txt").exists()
    # The folder itself may be a link.
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert unpack(tmp_path / "archive", tmp_path / "link") == 2


@WRITERS
def test_what_is_in_the_way_is_named(write, tmp_path):
    write(tmp_path / "archive", {"a": b"a"})
    (tmp_path / "data/a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"data/a: cannot be written .*archive"):
        unpack(tmp_path / "archive", tmp_path / "data")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("strike", [b"\1", bytes(tarfile.BLOCKSIZE)])
def test_a_damaged_header_is_not_the_end(tmp_path, mode, strike):
    write_tar(tmp_path / "a.tar", {"a": b"a" * 600, "b": b"b" * 600}, mode="w")
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[1536 : 1536 + len(strike)] = strike
    pack = {"w": bytes, "w:gz": gzip.compress, "w:xz": lzma.compress}[mode]
    (tmp_path / "a.tar").write_bytes(pack(content))
    with pytest.raises(DataError, match=r"a\.tar: .*no header of a file at byte 1,536"):
        unpack(tmp_path / "a.tar", tmp_path / "data")
    (tmp_path / "a.tar").write_bytes(pack(content[:1536]))
    with pytest.raises(DataError, match=r"a\.tar: .*its end is missing"):
        unpack(tmp_path / "a.tar", tmp_path / "data")
    assert tree(tmp_path / "data") == {}


def written(write, folder):
    write(folder / "archive", {"a": b"x" * 1000, "b": bytes(range(256)) * 50})
    return (folder / "archive").read_bytes()


@pytest.mark.parametrize("write", [write_zip, write_tar, partial(write_tar, mode="w")])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_is_a_data_error_and_leaves_nothing(tmp_path_factory, write, data):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(written(write, folder))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "archive").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DataError):
        unpack(folder / "archive", folder / "data")
        return
    assert tree(folder / "data") == {}


def test_absolute_names_stay_inside_or_are_refused(tmp_path):
    write_zip(tmp_path / "a.zip", {"/out.txt": b""})
    with pytest.raises(DataError, match="outside the folder"):
        unpack(tmp_path / "a.zip", tmp_path / "data")
    write_tar(tmp_path / "a.tar", {"/inside.txt": b"x"}, mode="w")
    unpack(tmp_path / "a.tar", tmp_path / "data")
    assert tree(tmp_path / "data") == {"inside.txt": b"x"}


def test_a_damaged_archive_leaves_nothing(tmp_path):
    write_zip(tmp_path / "damaged", {"a": b"x" * 1000, "b": bytes(range(256)) * 50})
    content = bytearray((tmp_path / "damaged").read_bytes())
    content[2000:2040] = bytes(40)
    (tmp_path / "damaged").write_bytes(content)
    write_tar(tmp_path / "cut_off", {"a": b"x" * 1000, "b": bytes(range(256)) * 50})
    (tmp_path / "cut_off").write_bytes((tmp_path / "cut_off").read_bytes()[:-200])
    for name in ("damaged", "cut_off"):
        with pytest.raises(DataError, match="delete it and download it again"):
            unpack(tmp_path / name, tmp_path / "data")
    assert tree(tmp_path / "data") == {}


def test_what_is_no_archive_is_named(tmp_path):
    (tmp_path / "page.zip").write_text("<html>")
    with pytest.raises(DataError, match=r"page\.zip: neither a zip nor a tar archive"):
        unpack(tmp_path / "page.zip", tmp_path / "data")
