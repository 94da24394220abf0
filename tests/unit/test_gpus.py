import os
import signal
import subprocess
import sys

import pytest

from cuvler.errors import CuvlerError
from cuvler.gpus import Gpu, hold_gpus, visible_gpus

UUIDS = ["GPU-aaa1", "GPU-aaa2", "GPU-b", "GPU-c"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this a machine of so many GPUs, as far as nvidia-smi says."""

    def machine(count, status=0, then=""):
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        lines = "".join(f"echo {index}, {uuid}\n" for index, uuid in enumerate(UUIDS[:count]))
        program.write_text(f"#!/bin/sh\n{lines}{then}exit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/usr/bin:/bin")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return machine


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["GPU-aaa1", "GPU-aaa2", "GPU-b"]),
        ("2,0", ["2", "0"]),
        (" 1 ", ["1"]),
        ("GPU-b,GPU-aaa2", ["GPU-b", "GPU-aaa2"]),
        ("MIG-7", ["MIG-7"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("0,5,1", ["0"]),
        ("NoDevFiles", []),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_see(machine, monkeypatch, visible, names):
    machine(3)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.name for gpu in visible_gpus(environment)] == names


def test_a_gpu_is_the_same_by_any_of_its_names(machine):
    machine(3)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,GPU-aaa2,GPU-aaa"}) == [
        Gpu("2", "GPU-b"),
        Gpu("GPU-aaa2", "GPU-aaa2"),
        Gpu("GPU-aaa", "GPU-aaa1"),
    ]


@pytest.mark.parametrize("visible", [{}, {"CUDA_VISIBLE_DEVICES": "0"}])
def test_there_are_none_without_a_driver(machine, visible):
    assert visible_gpus(visible) == []
    machine(2, status=9)
    assert visible_gpus(visible) == []


def test_a_driver_that_hangs_is_named(machine, monkeypatch):
    machine(0, then="exec sleep 5\n")
    monkeypatch.setattr("cuvler.gpus._TIMEOUT", 0.1)
    with pytest.raises(CuvlerError, match=r"nvidia-smi: no answer"):
        visible_gpus({})


HOLD = """
import os, sys
from cuvler.gpus import hold_gpus
with hold_gpus(int(sys.argv[1])):
    print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holding():
    """Start a process that holds GPUs until it is killed; return it and what it sees."""
    processes = []

    def start(count):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_processes_hold_different_gpus_until_they_end(machine, holding):
    machine(3)
    first, seen = holding(1)
    assert seen == "GPU-aaa1"
    _, seen = holding(2)
    assert seen == "GPU-aaa2,GPU-b"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert holding(1)[1] == "GPU-aaa1"


def test_gpus_are_shared_where_none_is_free(machine, holding):
    machine(2)
    assert holding(1)[1] == "GPU-aaa1"
    second, seen = holding(2)
    assert seen == "all"
    assert "GPU-aaa1" in second.communicate("")[1]


def test_a_choice_of_gpus_is_kept(machine, holding, monkeypatch):
    machine(4)
    assert holding(1)[1] == "GPU-aaa1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert holding(1)[1] == "3"


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_is_held_on_the_cpu_or_where_there_are_too_few(machine, tmp_path, count):
    machine(2)
    environment = {}
    with hold_gpus(count, environment):
        assert environment == {}
    assert not list(tmp_path.glob("**/*.lock"))


def test_the_environment_is_as_before_afterwards(machine):
    machine(3)
    environment = {"CUDA_VISIBLE_DEVICES": "1,2"}
    with hold_gpus(1, environment):
        assert environment == {"CUDA_VISIBLE_DEVICES": "1"}
    assert environment == {"CUDA_VISIBLE_DEVICES": "1,2"}


def test_a_folder_that_cannot_be_written_is_named(machine, tmp_path):
    machine(2)
    (tmp_path / f"cuvler-gpus-{os.getuid()}").write_text("not a folder")
    with pytest.raises(CuvlerError, match=r"cuvler-gpus-\d+: .*TMPDIR"), hold_gpus(1, {}):
        pass
