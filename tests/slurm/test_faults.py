"""Injected cluster faults; the results equal those of an undisturbed run.

Each fault hits two runs side by side, one for each way in which Snakemake can query jobs: most of
the time goes into waiting, and two trainings fit into the GPU node. The table at the end shows what
each fault cost.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest
import torch

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1800)]

ANNOTATIONS = "results/demo/annotations/demo_train/votecut.json"
DETECTOR = "results/demo/detectors/cuvler_round0"
MODEL = f"{DETECTOR}/model_final.pth"
ITERATIONS = 12


# The profile's way to query jobs, and the one where the controller forgets finished jobs early.
KEY = "slurm-status-command"
MODES = ("squeue", "sacct")
FAILED = {"FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY"}


@pytest.fixture(scope="module")
def undisturbed_runs():
    return []


@pytest.fixture
def settings(small):
    """A run of three jobs up to the annotations, with training long enough to be interrupted."""
    small["datasets"]["demo_train"]["shards"] = 1
    schedule = ["SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 3]
    small["detector"]["opts"] = [*schedule, "SOLVER.IMS_PER_BATCH", 2]
    return small


@pytest.fixture
def undisturbed(undisturbed_runs, new_workplace, settings, tmp_path_factory):
    """The folder of an undisturbed run on this machine, without SLURM."""
    if not undisturbed_runs:
        workplace = new_workplace(tmp_path_factory.mktemp("undisturbed") / "clone")
        workplace.snakemake(MODEL, *workplace.configure(**settings))
        undisturbed_runs.append(workplace.folder)
    return undisturbed_runs[0]


class Runs(list):
    """The same run in each mode, side by side."""

    def __init__(self, runs, undisturbed, fault, table):
        super().__init__(runs)
        self.undisturbed = undisturbed
        self.fault = fault
        self.table = table

    def start(self, *words, **options):
        for run in self:
            run.start(*words, **options)

    def wait_for_job(self, rule):
        """Wait until each has a running job of a rule, and return them."""
        return [run.wait_for_job(rule) for run in self]

    def finish(self, same):
        """Wait for the ends; add the outcome to the table and check it."""
        failures = []
        for mode, run in zip(MODES, self, strict=True):
            survived = equal = seconds = "no"
            try:
                run.finish()
                survived, seconds = "yes", f"{run.seconds:.0f}"
                equal = "yes" if same(run.folder, self.undisturbed) else "no"
                assert equal == "yes", "the results differ"
            except AssertionError as error:
                failures.append(f"{mode}: {error}")
            self.table.append((self.fault, mode, survived, equal, lost(run), seconds))
        assert not failures, "\n".join(failures)


def lost(run):
    """The attempts that a fault has cost, as text."""
    counts = Counter((job["Rule"], job["JobState"]) for job in run.jobs())
    restarted = Counter(job["Rule"] for job in run.jobs() if job["Restarts"] != "0")
    refused = run.output.count("SLURM sbatch failed")
    parts = [
        *(f"{n} {rule} {state}" for (rule, state), n in sorted(counts.items()) if state in FAILED),
        *(f"{n} {rule} restarted by SLURM" for rule, n in sorted(restarted.items())),
        *([f"{refused} not accepted"] if refused else []),
    ]
    return ", ".join(parts) or "none"


def same_annotations(ours, theirs):
    return (ours / ANNOTATIONS).read_bytes() == (theirs / ANNOTATIONS).read_bytes()


def same_detector(ours, theirs):
    """Compare every tensor, and the number of iterations: the files hold times."""
    logs = [(folder / DETECTOR / "metrics.json").read_text() for folder in (ours, theirs)]
    last = [json.loads(log.splitlines()[-1])["iteration"] for log in logs]
    models = [torch.load(folder / MODEL, weights_only=True)["model"] for folder in (ours, theirs)]
    return (
        last == [ITERATIONS - 1] * 2
        and models[0].keys() == models[1].keys()
        and all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    )


@pytest.fixture
def runs(request, new_run, settings, undisturbed, table):
    runs = [new_run(mode, settings) for mode in MODES]
    for run, mode in zip(runs, MODES, strict=True):
        run.change_profile(lambda profile, mode=mode: profile.update({KEY: mode}))
    fault = request.node.name.removeprefix("test_").replace("_", " ")
    return Runs(runs, undisturbed, fault, table)


@pytest.fixture
def with_annotations(runs, undisturbed):
    """The runs have only the training left."""
    for run in runs:
        shutil.copytree(undisturbed / "results", run.folder / "results")
        shutil.rmtree(run.folder / DETECTOR)
    return runs


def test_no_fault(runs):
    runs.start(ANNOTATIONS)
    runs.finish(same_annotations)


def test_snakemake_is_killed_and_started_again(runs):
    runs.start(ANNOTATIONS)
    runs.wait_for_job("eigenvectors")
    for run in runs:
        run.kill()
    # The jobs are not affected. After they finish, a new Snakemake continues.
    for run in runs:
        run.wait_until(lambda run=run: run.states(None).keys() == {"COMPLETED"}, alive=False)
        run.workplace.snakemake("--unlock", *run.settings)
    runs.start(ANNOTATIONS)
    runs.finish(same_annotations)
    # Nothing ran twice: the number of jobs of each rule is that of the plan.
    for run in runs:
        made = Counter(job["Rule"] for job in run.jobs())
        assert made == {"eigenvectors": 1, "pseudo_masks": 1, "annotations": 1}


def test_a_job_is_cancelled(runs):
    runs.start(ANNOTATIONS)
    for job in runs.wait_for_job("eigenvectors"):
        subprocess.run(["scancel", job["JobId"]], check=True)
    runs.finish(same_annotations)
    for run in runs:
        assert run.states("eigenvectors") == {"CANCELLED": 1, "COMPLETED": 1}


def test_a_job_runs_out_of_time(cluster, runs):
    for run in runs:
        run.change_profile(
            lambda profile: profile["set-resources"]["pseudo_masks"].update(runtime="1 * attempt")
        )
    runs.start(ANNOTATIONS)
    # The jobs hang until their limit of one minute.
    for run, job in zip(runs, runs.wait_for_job("pseudo_masks"), strict=True):
        for process in run.wait_until(lambda job=job: cluster.processes(job, "pseudo-masks")):
            os.kill(process, signal.SIGSTOP)
    runs.finish(same_annotations)
    for run in runs:
        jobs = [(job["JobState"], job["TimeLimit"]) for job in run.jobs("pseudo_masks")]
        assert jobs == [("TIMEOUT", "00:01:00"), ("COMPLETED", "00:02:00")]


def test_a_job_has_too_little_memory(cluster, runs):
    for run in runs:
        run.change_profile(
            # Snakemake in the job takes 170 MB, torch several hundred more.
            lambda profile: profile["set-resources"]["eigenvectors"].update(
                mem_mb="300 * 20 ** (attempt - 1)"
            )
        )
    runs.start(ANNOTATIONS)
    runs.finish(same_annotations)
    log = (cluster.folder / "gpu1.log").read_text()
    for run in runs:
        jobs = run.jobs("eigenvectors")
        outcome = [(job["JobState"], job["MinMemoryNode"]) for job in jobs]
        assert outcome == [("FAILED", "300M"), ("COMPLETED", "6000M")]
        for job in jobs:
            killed = re.search(rf"StepId={job['JobId']}\.\w+ exceeded memory limit", log)
            assert bool(killed) == (job["JobState"] == "FAILED")


@pytest.fixture
def broken_queries(tmp_path):
    """A folder for the path, where sacct and squeue fail while it has a file ``broken``.

    They write the working directory of each caller to the file ``refused``.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sacct", "squeue"):
        program = shutil.which(name)
        refuse = f"pwd >> {folder}/refused; exit 1"
        script = f'#!/bin/sh\nif [ -e {folder}/broken ]; then {refuse}; fi\nexec {program} "$@"\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder


def test_queries_fail_for_15_seconds(runs, broken_queries):
    runs.start(ANNOTATIONS, path=broken_queries)
    runs.wait_for_job("eigenvectors")
    (broken_queries / "broken").touch()
    time.sleep(15)
    (broken_queries / "broken").unlink()
    runs.finish(same_annotations)
    for run in runs:
        assert set(run.states(None)) == {"COMPLETED"}


def test_accounting_stops_for_60_seconds(cluster, runs):
    runs.start(ANNOTATIONS)
    runs.wait_for_job("eigenvectors")
    cluster.run("halt", "slurmdbd")
    time.sleep(60)
    cluster.run("launch", "slurmdbd")
    runs.finish(same_annotations)
    for run in runs:
        assert set(run.states(None)) == {"COMPLETED"}


def test_a_run_that_hangs_ends_by_sigint_and_goes_on(runs, broken_queries):
    """As the plugin behaves without the profile's settings."""
    without = ("--slurm-status-attempts", "5", "--max-status-checks-per-second", "100")
    runs.start(ANNOTATIONS, *without, path=broken_queries)
    runs.wait_for_job("eigenvectors")
    refused = broken_queries / "refused"
    refused.touch()
    (broken_queries / "broken").touch()
    for run in runs:
        # How soon the plugin queries depends on how long the job has run.
        run.wait_until(lambda run=run: refused.read_text().count(f"{run.folder}\n") >= 5)
        run.wait_until(lambda run=run: run.states("eigenvectors") == {"COMPLETED": 1})
    (broken_queries / "broken").unlink()
    for run in runs:
        run.process.send_signal(signal.SIGTERM)
    time.sleep(30)
    for run in runs:
        assert run.process.poll() is None
        assert not run.jobs("pseudo_masks")
        run.process.send_signal(signal.SIGINT)
        run.finish(status=1)
    runs.start(ANNOTATIONS)
    runs.finish(same_annotations)
    for run in runs:
        assert run.states("eigenvectors") == {"COMPLETED": 1}


def restart_soon(cluster, runs, rule):
    """Do not wait until SLURM restarts a lost node's jobs, which it does after two minutes.

    Its messages that end them may still be on their way, and must not meet the restarted ones.
    """
    time.sleep(15)
    for run in runs:
        for job in run.jobs(rule):
            cluster.update(f"JobId={job['JobId']}", "StartTime=now")


def restarts(runs, rule):
    return [[(job["JobId"], job["Restarts"]) for job in run.jobs(rule)] for run in runs]


def test_a_node_goes_down(cluster, runs):
    runs.start(ANNOTATIONS)
    jobs = runs.wait_for_job("pseudo_masks")
    # The node is well and registers again; its jobs are lost.
    cluster.update("NodeName=cpu1", "State=DOWN", "Reason=test")
    runs[0].wait_until(lambda: not cluster.nodes()["cpu1"].startswith("down"))
    restart_soon(cluster, runs, "pseudo_masks")
    runs.finish(same_annotations)
    # SLURM restarts the job under the same id, and Snakemake submits no other.
    assert restarts(runs, "pseudo_masks") == [[(job["JobId"], "1")] for job in jobs]


def test_a_node_crashes_in_a_training_and_comes_back(cluster, with_annotations):
    runs = with_annotations
    runs.start(MODEL)
    jobs = runs.wait_for_job("detector")
    for run in runs:
        run.wait_until((run.folder / DETECTOR / "checkpoint.pth").exists)
    cluster.run("crash", "gpu1")
    runs[0].wait_until(lambda: cluster.nodes()["gpu1"].startswith("down"))
    cluster.run("boot", "gpu1")
    runs[0].wait_until(lambda: not cluster.nodes()["gpu1"].startswith("down"))
    restart_soon(cluster, runs, "detector")
    runs.finish(same_detector)
    assert restarts(runs, "detector") == [[(job["JobId"], "1")] for job in jobs]


def test_the_controller_restarts(cluster, runs):
    runs.start(ANNOTATIONS)
    runs.wait_for_job("eigenvectors")
    cluster.run("halt", "slurmctld")
    time.sleep(20)
    cluster.run("launch", "slurmctld")
    runs.finish(same_annotations)


def test_a_training_takes_longer_than_its_limit(cluster, with_annotations):
    runs = with_annotations
    for run in runs:
        run.change_profile(lambda profile: profile["__variables__"].update(max_runtime=1))
    runs.start(MODEL)
    for run, job in zip(runs, runs.wait_for_job("detector"), strict=True):
        run.wait_until((run.folder / DETECTOR / "checkpoint.pth").exists)
        for process in cluster.processes(job, "detector"):
            os.kill(process, signal.SIGSTOP)
    runs.finish(same_detector)
    for run in runs:
        states = [job["JobState"] for job in run.jobs("detector")]
        assert states[0] == "TIMEOUT"
        assert states[-1] == "COMPLETED"


@pytest.fixture
def one_hour_at_most(cluster):
    """A function: gives the partition cpu a limit below the profile's, enforced or not."""

    def limit(enforced):
        # Reads the partitions from the file again.
        cluster.configure("EnforcePartLimits", enforced)
        cluster.update("PartitionName=cpu", "MaxTime=60")

    yield limit
    cluster.configure("EnforcePartLimits", "NO")


def test_the_limit_of_a_partition_is_exceeded(cluster, runs, one_hour_at_most):
    one_hour_at_most(enforced="NO")
    runs.start(ANNOTATIONS)
    for run in runs:
        run.wait_until(lambda run=run: "PartitionTimeLimit" in run.output)
        assert re.search(
            r"cannot start: pseudo_masks \w+ \(SLURM job \d+\): PartitionTimeLimit: .*max_runtime",
            run.output,
        )
        words = run.workplace.command() | {"args": ["cuvler", "status", ANNOTATIONS, *run.settings]}
        status = subprocess.run(**words).stdout
        assert re.search(r"^cannot start: pseudo_masks .*: PartitionTimeLimit: ", status, re.M)
    cluster.update("PartitionName=cpu", "MaxTime=INFINITE")
    runs.finish(same_annotations)


def test_the_limit_of_a_partition_is_enforced(runs, one_hour_at_most):
    one_hour_at_most(enforced="ALL")
    runs.start(ANNOTATIONS)
    for run in runs:
        run.finish(status=1)
        assert re.search(
            r"SLURM refused jobs: Requested time limit is invalid .*max_runtime", run.output
        )
        run.change_profile(lambda profile: profile["__variables__"].update(max_runtime=60))
    # With the advised change the same command goes on.
    runs.start(ANNOTATIONS)
    runs.finish(same_annotations)
    for run in runs:
        assert {job["TimeLimit"] for job in run.jobs("pseudo_masks")} == {"01:00:00"}
