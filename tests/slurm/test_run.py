"""The workflow on a real SLURM; the checks read SLURM's own records."""

from collections import defaultdict

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3000)]

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


def test_each_rule_runs_where_it_should(cluster, workplace, tiny):
    settings = workplace.configure(**tiny)
    mark = cluster.mark()
    workplace.snakemake("all", *cluster.flags, *settings)
    jobs = defaultdict(list)
    for job in cluster.since(mark):
        jobs[job["Rule"]].append(job)
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
