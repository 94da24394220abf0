"""The workflow on a real SLURM; the checks read SLURM's own records."""

import re
import subprocess
from collections import defaultdict

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3000)]

# This cluster keeps no accounts and has no accounting database.
FLAGS = [
    "--slurm-no-account",
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "5"),
]
PARTITION = {
    "eigenvectors": "gpu",
    "detector": "gpu",
    "predictions": "gpu",
    "pseudo_masks": "cpu",
    "annotations": "cpu",
    "self_training": "cpu",
    "evaluation": "cpu",
    "report": "cpu",
}
CORES = {"eigenvectors": 16, "pseudo_masks": 16, "detector": 48, "predictions": 16}
GPUS = {"eigenvectors": 1, "detector": 8, "predictions": 1}


def jobs_by_rule():
    """What the controller remembers of each rule's jobs."""
    output = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True
    ).stdout
    jobs = defaultdict(list)
    for line in output.splitlines():
        job = dict(re.findall(r"(\S+?)=(\S*)", line))
        if match := re.match(r"rule_(\w+?)(_wildcards|$)", job.get("Comment", "")):
            jobs[match[1]].append(job)
    return jobs


def test_each_rule_runs_where_it_should(cluster, workplace, tiny):
    settings = workplace.configure(**tiny)
    workplace.snakemake("all", "--profile", "profiles/slurm", *FLAGS, *settings)
    jobs = jobs_by_rule()
    assert jobs.keys() == PARTITION.keys()
    for rule, partition in PARTITION.items():
        for job in jobs[rule]:
            assert job["JobState"] == "COMPLETED"
            assert job["Partition"] == partition
            assert int(job["NumCPUs"]) == CORES.get(rule, 1)
            assert job.get("TresPerNode", "") == (f"gres:gpu:{GPUS[rule]}" if rule in GPUS else "")
    # One for each backbone and shard of both datasets; downloads, listing and tables are local.
    assert len(jobs["eigenvectors"]) == 2 * (3 + 1)
    assert len(jobs["pseudo_masks"]) == 3 + 1
