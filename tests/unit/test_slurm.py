import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from cuvler import slurm
from cuvler.cli import cuvler
from cuvler.commands import status as status_command


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A function that puts a ``squeue`` with an output on the path; returns the run's folder."""
    monkeypatch.chdir(tmp_path)

    def install(*jobs, script=""):
        lines = [f"{number}|{reason}|{tmp_path}|{comment}" for number, reason, comment in jobs]
        (tmp_path / "queue.txt").write_text("".join(f"{line}\n" for line in lines))
        program = tmp_path / "bin/squeue"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\ncat {tmp_path}/queue.txt\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return tmp_path

    return install


JOB = "rule_pseudo_masks_wildcards_coco_votecut_3"


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("PartitionTimeLimit", "max_runtime"),
        ("QOSMaxWallDurationPerJobLimit", "max_runtime"),
        ("AssocMaxWallDurationPerJobLimit", "max_runtime"),
        ("BadConstraints", "max_mem_mb"),
        ("PartitionNodeLimit", "max_mem_mb"),
        ("QOSMaxGRESPerJob", "gres"),
        ("QOSMaxMemoryPerJob", "max_mem_mb"),
        ("InvalidAccount", "slurm_account"),
        ("InvalidQOS", "qos"),
        ("ReqNodeNotAvail, UnavailableNodes:gpu1", "sinfo"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs", "sinfo"),
        ("JobHeldUser", "scontrol release"),
        ("launch failed requeued held", "scontrol release"),
        ("DependencyNeverSatisfied", "scancel"),
    ],
)
def test_a_job_that_cannot_start_is_named_with_the_reason_and_what_to_change(queue, reason, key):
    folder = queue(("7", reason, JOB))
    (job,) = slurm.stuck_jobs(folder)
    assert (job.number, job.name, job.reason) == ("7", "pseudo_masks coco_votecut_3", reason)
    assert key in job.advice


@pytest.mark.parametrize(
    "reason", ["None", "Priority", "Resources", "BeginTime", "QOSMaxJobsPerUserLimit", "Licenses"]
)
def test_jobs_that_wait_for_their_turn_are_not_named(queue, reason):
    assert slurm.stuck_jobs(queue(("7", reason, JOB))) == []


def test_jobs_of_others_are_not_named(queue, tmp_path):
    folder = queue(("7", "BadConstraints", "my own job"), ("8", "BadConstraints", JOB))
    found = slurm.stuck_jobs(folder)
    assert [job.number for job in found] == ["8"]
    (tmp_path / "other").mkdir()
    assert slurm.stuck_jobs(tmp_path / "other") == []


def test_without_slurm_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.stuck_jobs(tmp_path) == []


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 60"])
@pytest.mark.slow
def test_status_does_not_wait_for_slurm(queue, monkeypatch, script):
    queue(script=script)
    monkeypatch.setattr(status_command, "summary", lambda arguments: "rule\toutput_file\n")
    result = CliRunner().invoke(cuvler, ["status"])
    assert "no answer" in result.output


def test_status_names_them(queue, monkeypatch):
    queue(("7", "PartitionTimeLimit", JOB))
    monkeypatch.setattr(status_command, "summary", lambda arguments: "rule\toutput_file\n")
    output = CliRunner().invoke(cuvler, ["status"]).output
    assert "pseudo_masks coco_votecut_3 (SLURM job 7): PartitionTimeLimit: " in output


def test_the_log_names_each_job_and_reason_once(queue):
    folder = queue(("7", "PartitionTimeLimit", JOB), ("8", "Priority", JOB))
    warnings = []
    second = threading.Event()

    def warn(message):
        warnings.append(message)
        queue(("7", "PartitionTimeLimit", JOB), ("8", "JobHeldUser", JOB))
        if len(warnings) == 2:
            second.set()

    stop = slurm.watch(folder, warn, period=0.05)
    try:
        assert second.wait(30)
    finally:
        stop.set()
    assert "(SLURM job 7): PartitionTimeLimit" in warnings[0]
    assert "(SLURM job 8): JobHeldUser" in warnings[1]


@pytest.mark.parametrize(
    ("error", "key"),
    [
        ("Requested time limit is invalid (missing or exceeds some limit)", "max_runtime"),
        ("Requested node configuration is not available", "max_mem_mb"),
        ("Memory specification can not be satisfied", "max_mem_mb"),
        ("CPU count per node can not be satisfied", "cpus_per_task"),
        ("Invalid account or account/partition combination specified", "slurm_account"),
        ("Invalid qos specification", "qos"),
        ("invalid partition specified: cpu", "slurm_partition"),
        ("User's group not permitted to use this partition", "slurm_partition"),
    ],
)
def test_errors_of_sbatch_say_what_to_change(tmp_path, error, key):
    prefix = "" if error.startswith("invalid partition") else "Batch job submission failed: "
    message = f"SLURM sbatch failed. The error message was 'sbatch: error: {prefix}{error}'.\n"
    (tmp_path / "snakemake.log").write_text(f"Some rule\n{message}    sbatch call: x\n" * 18)
    (refusal,) = slurm.refusals([tmp_path / "snakemake.log"])
    assert refusal.startswith(f"{error}: ")
    assert key in refusal


REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def sacct(tmp_path):
    """A function: a script for the real ``sacct`` -> a function that calls ours on the path."""

    def install(script):
        program = tmp_path / "real/sacct"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        environment = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
        slurm.correct_sacct(REPOSITORY / "workflow/slurm", environment)

        def call(*words):
            command = shutil.which("sacct", path=environment["PATH"])
            run = {"capture_output": True, "text": True, "check": False}
            return subprocess.run([command, *words], env=environment, **run)

        return call

    return install


def test_sacct_gives_the_states_that_the_plugin_knows(sacct):
    result = sacct("printf '7|CANCELLED by 1000\\n8|RUNNING\\n'")("--format=JobIdRaw,State")
    assert result.stdout == "7|CANCELLED\n8|RUNNING\n"


def test_sacct_names_no_node_to_avoid(sacct):
    result = sacct("echo None assigned")("-j", "7", "-n", "-X", "-o", "nodelist%-256")
    assert (result.stdout, result.returncode) == ("", 0)


def test_a_failing_sacct_fails(sacct):
    assert sacct("echo 7; exit 3")("-X").returncode == 3


def test_without_sacct_the_path_stays(tmp_path):
    environment = {"PATH": str(tmp_path)}
    slurm.correct_sacct(REPOSITORY / "workflow/slurm", environment)
    assert environment == {"PATH": str(tmp_path)}


def test_a_node_is_met_at_its_name_or_the_address_slurm_has(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$*" = "show node --oneliner gpu.invalid" ] || exit 1\n'
        "echo NodeName=gpu.invalid NodeAddr=10.0.0.3 NodeHostName=gpu Version=22.05\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert slurm.node_address("localhost") == "localhost"
    assert slurm.node_address("gpu.invalid") == "10.0.0.3"
    assert slurm.node_address("other.invalid") == "other.invalid"
    program.unlink()
    assert slurm.node_address("gpu.invalid") == "gpu.invalid"
