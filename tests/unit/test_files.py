import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from cuvler.coco import write_annotations
from cuvler.coco.stream import stream_file
from cuvler.detector.checkpoints import save_state
from cuvler.download.digests import forget_sha256, record_sha256
from cuvler.eigenvectors.store import ShardEigenvectors, write_eigenvectors
from cuvler.errors import DataError
from cuvler.files import atomic_path, full_disk_named, read_json, write_json
from cuvler.listing import write_listing


def test_json_round_trip_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"name": "ünï", "values": [1, 2.5, None]})
    assert read_json(path) == {"name": "ünï", "values": [1, 2.5, None]}
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_previous_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, "previous")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": math.nan})
    assert read_json(path) == "previous"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_nothing_under_the_name(tmp_path):
    path = tmp_path / "a.json"
    script = (
        "import os, signal, sys; from cuvler.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, path]).returncode == -signal.SIGKILL
    assert not path.exists()


def test_the_umask_is_kept(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a") as part:
            part.touch()
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", ["", '{"images": [', "\udcff"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"a\.json.*delete"):
        read_json(path)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")


def listing(path):
    rng = np.random.default_rng(0)
    names = [rng.bytes(20).hex() for _ in range(9000)]
    write_listing(pd.DataFrame({"image_id": range(9000), "file_name": names}), path)


def annotations(path):
    with write_annotations(path, {"info": {}}) as writer:
        for number in range(9000):
            writer.add_image({"id": number})
            writer.add_annotation({"id": number})


def safetensors(path):
    with atomic_path(path) as part:
        save_file({"weight": torch.zeros(50_000)}, part)


WRITERS = {
    "json": lambda path: write_json(path, "x" * 200_000),
    "listing": listing,
    "eigenvectors": lambda path: write_eigenvectors(
        path, ShardEigenvectors.empty(np.arange(9000), 1, (2, 2)), {}
    ),
    "annotations": annotations,
    "checkpoint": lambda path: save_state({"weight": torch.zeros(50_000)}, path),
    "weights": safetensors,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_named_and_leaves_no_file(tmp_path, full_disk, kind):
    message = r"file\.x: cannot be written \(File too large\)"
    with full_disk(), pytest.raises(DataError, match=message):
        WRITERS[kind](tmp_path / "file.x")
    assert list(tmp_path.iterdir()) == []
    WRITERS[kind](tmp_path / "file.x")


def test_a_full_disk_leaves_the_previous_file(tmp_path, full_disk):
    write_json(tmp_path / "a.json", "previous")
    with full_disk(), pytest.raises(DataError, match="cannot be written"):
        write_json(tmp_path / "a.json", "x" * 200_000)
    assert read_json(tmp_path / "a.json") == "previous"


def test_an_error_of_another_kind_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), atomic_path(tmp_path / "a"):
        raise RuntimeError("a bug")


@pytest.mark.parametrize("name", ["a.json", "deeper/a.json"])
def test_a_read_only_folder_is_named(public_folder, as_plain_user, name):
    public_folder.chmod(0o555)
    message = r"a\.json: cannot be written \(Permission denied: .*make the folder writable"
    with as_plain_user(), pytest.raises(DataError, match=message):
        write_json(public_folder / name, {})


def test_a_digest_in_a_read_only_folder_is_named(public_folder, as_plain_user):
    record_sha256(public_folder / "a", "0")
    public_folder.chmod(0o555)
    message = r"a\.sha256: cannot be deleted \(Permission denied\)"
    with as_plain_user(), pytest.raises(DataError, match=message):
        forget_sha256(public_folder / "a")


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(DataError, match=r"a\.json: cannot be written"):
        write_json(tmp_path / "results" / "a.json", {})


def test_json_that_may_not_be_read_is_named(public_folder, as_plain_user):
    (public_folder / "a.json").write_text("{}")
    (public_folder / "a.json").chmod(0)
    for read in (read_json, lambda path: list(stream_file(path))):
        with as_plain_user(), pytest.raises(DataError, match=r"a\.json: cannot be read \(Perm"):
            read(public_folder / "a.json")


def test_a_full_disk_is_named_where_files_are_written_bit_by_bit(tmp_path, full_disk):
    with (
        full_disk(),
        pytest.raises(DataError, match=r"folder: cannot be written .*free space"),
        full_disk_named("folder"),
    ):
        (tmp_path / "x").write_bytes(bytes(200_000))
    with pytest.raises(FileNotFoundError), full_disk_named("folder"):
        (tmp_path / "missing" / "x").touch()


def test_a_full_disk_is_named_where_a_database_is_written(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "x.sqlite")) as database:
        database.execute("pragma max_page_count = 3")
        database.execute("create table x (y)")
        message = r"folder: .*database or disk is full"
        with pytest.raises(DataError, match=message), full_disk_named("folder"):
            database.execute("insert into x values (?)", (bytes(100_000),))
        with pytest.raises(sqlite3.OperationalError), full_disk_named("folder"):
            database.execute("no sql")
