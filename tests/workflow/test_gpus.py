"""Jobs on a machine with several GPUs, as reported by a stub."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.workflow

# A stub for `cuvler`: short jobs that record when and on which GPU they ran.
COMMAND = f"""#!{sys.executable}
import json, os, sys, time
from pathlib import Path
from cuvler.gpus import hold_gpus

stage, output = sys.argv[1], Path(sys.argv[sys.argv.index("--output") + 1])
with hold_gpus(1 if stage == "eigenvectors" else 0):
    job = {{"stage": stage, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "start": time.time()}}
    time.sleep(0.5)
    job["end"] = time.time()
output.touch()
with open(os.environ["JOBS"], "a") as stream:
    stream.write(json.dumps(job) + "\\n")
"""
TWO_GPUS = "echo 0, GPU-a; echo 1, GPU-b"
NO_DRIVER = "exit 9"


@pytest.fixture
def run(workplace, tmp_path, monkeypatch):
    """Run twelve jobs of eigenvectors and six of pseudo-masks on 64 cores; return the jobs."""

    def run(nvidia_smi, **settings):
        programs = tmp_path / "bin"
        programs.mkdir()
        for name, text in (("cuvler", COMMAND), ("nvidia-smi", f"#!/bin/sh\n{nvidia_smi}\n")):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("JOBS", str(tmp_path / "jobs"))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        flags = workplace.configure(
            **settings,
            eigenvectors={"device": "auto"},
            datasets={"demo_train": {"shards": 6}},
            pseudo_masks={"votecut": {"backbones": ["pixels_p16", "pixels_p8"]}},
        )
        target = "results/demo/annotations/demo_train/votecut.json"
        command = workplace.command("--cores", 64, target, *flags)
        command["env"]["PATH"] = f"{programs}{os.pathsep}{command['env']['PATH']}"
        result = subprocess.run(**command)
        assert result.returncode == 0, result.stdout[-5000:]
        jobs = [json.loads(line) for line in (tmp_path / "jobs").read_text().splitlines()]
        return [job for job in jobs if job["stage"] == "eigenvectors"]

    return run


def at_once(jobs):
    """Return the jobs that run when each job starts."""
    return [
        [other for other in jobs if other["start"] <= job["start"] < other["end"]] for job in jobs
    ]


def test_no_more_jobs_than_gpus_run_at_once_each_on_its_own(run):
    jobs = run(TWO_GPUS)
    assert len(jobs) == 12
    together = at_once(jobs)
    assert max(map(len, together)) == 2
    for group in together:
        assert len({job["gpu"] for job in group}) == len(group)
    assert {job["gpu"] for job in jobs} == {"GPU-a", "GPU-b"}


def test_a_run_may_be_given_fewer_gpus(run):
    assert max(map(len, at_once(run(TWO_GPUS, gpus=1)))) == 1


def test_without_gpus_the_cores_are_shared(run):
    jobs = run(NO_DRIVER)
    assert {job["gpu"] for job in jobs} == {None}
    # 64 cores for jobs of 16.
    assert max(map(len, at_once(jobs))) > 2
