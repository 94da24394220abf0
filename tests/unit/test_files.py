import math
import os
import signal
import subprocess
import sys

import pytest

from cuvler.errors import DataError
from cuvler.files import atomic_path, read_json, write_json


def test_json_round_trip_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"name": "ünï", "values": [1, 2.5, None]})
    assert read_json(path) == {"name": "ünï", "values": [1, 2.5, None]}
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_former_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, "former")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": math.nan})
    assert read_json(path) == "former"
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
