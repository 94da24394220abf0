"""The workflow on a real SLURM; the checks read SLURM's own records."""

import json
from collections import defaultdict

import pytest
import yaml

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


def test_each_rule_runs_on_its_partition(cluster, workplace, tiny):
    settings = workplace.configure(**tiny)
    workplace.snakemake("all", *cluster.flags, *settings)
    jobs = defaultdict(list)
    for job in cluster.jobs(workplace.folder):
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


def test_small_jobs_are_grouped(cluster, workplace, small):
    path = workplace.folder / "profiles/slurm/config.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["set-resources"]["pseudo_masks"]["cpus_per_task"] = 1
    path.write_text(yaml.safe_dump(profile))
    grouping = ["--groups", "pseudo_masks=votes", "--group-components", "votes=2"]
    target = "results/demo/annotations/demo_train/votecut.json"
    workplace.snakemake(target, *cluster.flags, *grouping, *workplace.configure(**small))
    # Two of eigenvectors, one group of both shards' masks, and the merge.
    assert [job["JobState"] for job in cluster.jobs(workplace.folder)] == ["COMPLETED"] * 4
    merged = json.loads((workplace.folder / target).read_text())
    assert len(merged["images"]) == 9
