"""Injected cluster faults; the results equal those of an undisturbed run."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter

import pytest
import torch
import yaml

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1800)]

ANNOTATIONS = "results/demo/annotations/demo_train/votecut.json"
DETECTOR = "results/demo/detectors/cuvler_round0"
ITERATIONS = 24


@pytest.fixture
def small(small):
    """The small run, with training long enough to be interrupted."""
    schedule = ["SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 4]
    small["detector"]["opts"] = [*schedule, "SOLVER.IMS_PER_BATCH", 2]
    return small


@pytest.fixture(scope="module")
def undisturbed_runs():
    """A function: target -> folder of an undisturbed run on this machine, without SLURM."""
    return {}


@pytest.fixture
def undisturbed(undisturbed_runs, workplace, small, tmp_path_factory):
    """Return the results folder of an undisturbed run."""

    def run(target):
        if target not in undisturbed_runs:
            workplace.snakemake(target, *workplace.configure(**small))
            undisturbed_runs[target] = tmp_path_factory.mktemp("undisturbed") / "results"
            shutil.move(workplace.folder / "results", undisturbed_runs[target])
        return undisturbed_runs[target].parent

    return run


@pytest.fixture
def start(cluster, workplace, small):
    """Start Snakemake on the cluster; it is killed after the test."""
    runs = []

    def start(target):
        runs.append(workplace.start(target, *cluster.flags, *workplace.configure(**small)))
        return runs[-1]

    yield start
    for run in runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()


def change_profile(workplace, change):
    """Edit the workplace's copy of the profile."""
    path = workplace.folder / "profiles/slurm/config.yaml"
    profile = yaml.safe_load(path.read_text())
    change(profile)
    path.write_text(yaml.safe_dump(profile))


def finish(run):
    output = run.communicate()[0]
    assert run.returncode == 0, output[-5000:]
    return output


def same_annotations(workplace, undisturbed):
    ours, theirs = (folder / ANNOTATIONS for folder in (workplace.folder, undisturbed(ANNOTATIONS)))
    return ours.read_bytes() == theirs.read_bytes()


def states(cluster, mark, rule):
    return [job["JobState"] for job in cluster.since(mark) if job["Rule"] == rule]


def test_snakemake_is_killed_and_started_again(cluster, workplace, small, start, undisturbed):
    undisturbed(ANNOTATIONS)
    settings = workplace.configure(**small)
    mark = cluster.mark()
    run = start(ANNOTATIONS)
    cluster.wait_for_job(mark, "eigenvectors", run=run)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    # The jobs are not affected. After they finish, a new Snakemake continues.
    cluster.wait_until(lambda: all(j["JobState"] == "COMPLETED" for j in cluster.since(mark)))
    workplace.snakemake("--unlock", *settings)
    workplace.snakemake(ANNOTATIONS, *cluster.flags, *settings)
    assert same_annotations(workplace, undisturbed)
    # Nothing ran twice: the number of jobs of each rule is that of the plan.
    made = Counter(job["Rule"] for job in cluster.since(mark))
    assert made == {"eigenvectors": 2, "pseudo_masks": 2, "annotations": 1}


def test_a_job_is_cancelled(cluster, workplace, start, undisturbed):
    undisturbed(ANNOTATIONS)
    mark = cluster.mark()
    run = start(ANNOTATIONS)
    job = cluster.wait_for_job(mark, "eigenvectors", run=run)
    subprocess.run(["scancel", job["JobId"]], check=True)
    finish(run)
    assert same_annotations(workplace, undisturbed)
    assert Counter(states(cluster, mark, "eigenvectors")) == {"CANCELLED": 1, "COMPLETED": 2}


def test_a_job_runs_out_of_time(cluster, workplace, start, undisturbed):
    undisturbed(ANNOTATIONS)
    change_profile(
        workplace,
        lambda profile: profile["set-resources"]["pseudo_masks"].update(runtime="1 * attempt"),
    )
    mark = cluster.mark()
    run = start(ANNOTATIONS)
    job = cluster.wait_for_job(mark, "pseudo_masks", run=run)
    # The job hangs until its limit of one minute.
    for process in cluster.wait_until(lambda: cluster.processes(job, "pseudo-masks")):
        os.kill(process, signal.SIGSTOP)
    finish(run)
    assert same_annotations(workplace, undisturbed)
    jobs = [job for job in cluster.since(mark) if job["Rule"] == "pseudo_masks"]
    outcome = Counter((job["JobState"], job["TimeLimit"]) for job in jobs)
    assert outcome["TIMEOUT", "00:01:00"] == 1
    assert outcome["COMPLETED", "00:02:00"] == 1


def test_a_job_has_too_little_memory(cluster, workplace, start, undisturbed):
    undisturbed(ANNOTATIONS)
    change_profile(
        workplace,
        # Snakemake in the job takes 170 MB, torch several hundred more.
        lambda profile: profile["set-resources"]["eigenvectors"].update(
            mem_mb="300 * 20 ** (attempt - 1)"
        ),
    )
    mark = cluster.mark()
    run = start(ANNOTATIONS)
    finish(run)
    assert same_annotations(workplace, undisturbed)
    jobs = [job for job in cluster.since(mark) if job["Rule"] == "eigenvectors"]
    outcome = Counter((job["JobState"], job["MinMemoryNode"]) for job in jobs)
    assert outcome == {("FAILED", "300M"): 2, ("COMPLETED", "6000M"): 2}
    log = (cluster.folder / "gpu1.log").read_text()
    failed = [job["JobId"] for job in jobs if job["JobState"] == "FAILED"]
    assert all(re.search(rf"StepId={number}\.\w+ exceeded memory limit", log) for number in failed)


def test_a_node_is_lost_in_a_training_and_comes_back(cluster, workplace, start, undisturbed):
    target = f"{DETECTOR}/model_final.pth"
    whole = undisturbed(target)
    mark = cluster.mark()
    run = start(target)
    job = cluster.wait_for_job(mark, "detector", run=run)
    checkpoint = workplace.folder / DETECTOR / "checkpoint.pth"
    cluster.wait_until(checkpoint.exists)
    cluster.run("crash", "gpu1")
    cluster.wait_until(lambda: cluster.nodes()["gpu1"].startswith("down"))
    cluster.run("boot", "gpu1")
    # SLURM waits two minutes before it restarts a requeued job.
    finish(run)

    (again,) = [job for job in cluster.since(mark) if job["Rule"] == "detector"]
    assert (again["JobId"], again["JobState"], again["Restarts"]) == (
        job["JobId"],
        "COMPLETED",
        "1",
    )
    logs = [folder / DETECTOR / "metrics.json" for folder in (workplace.folder, whole)]
    metrics = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    assert metrics[0][-1]["iteration"] == metrics[1][-1]["iteration"] == ITERATIONS - 1
    models = [
        torch.load(folder / target, weights_only=True)["model"]
        for folder in (workplace.folder, whole)
    ]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    ours, theirs = (folder / ANNOTATIONS for folder in (workplace.folder, whole))
    assert ours.read_bytes() == theirs.read_bytes()
