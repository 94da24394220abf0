"""One training on two nodes ends like the same training in one process, also if a node is lost."""

import contextlib
import json
import os
import re
import shutil
import signal
import time

import pytest
import torch

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]

ANNOTATIONS = "results/demo/annotations/demo_train/votecut.json"
DETECTOR = "results/demo/detectors/cuvler_round0"
MODEL = f"{DETECTOR}/model_final.pth"
SCHEDULE = ("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 12, "SOLVER.CHECKPOINT_PERIOD", 3)


@pytest.fixture
def settings(tiny_dataset, even):
    _, root = tiny_dataset
    return {
        "datasets": {"demo_train": {"images": str(root), "shards": 1}},
        "detector": {"num_gpus": 0, "workers": 0, "opts": [*SCHEDULE, *even]},
    }


def add_annotations(folder, tiny_dataset):
    (folder / ANNOTATIONS).parent.mkdir(parents=True)
    shutil.copyfile(tiny_dataset[0], folder / ANNOTATIONS)


@pytest.fixture
def alone(new_workplace, settings, tiny_dataset, tmp_path):
    """The folder of a training in one process on this machine, without SLURM."""
    workplace = new_workplace(tmp_path / "alone")
    add_annotations(workplace.folder, tiny_dataset)
    workplace.snakemake(MODEL, *workplace.configure(**settings))
    return workplace.folder


@pytest.fixture
def run(new_run, settings, tiny_dataset):
    """The same on two nodes; only the detector is left to be made."""
    two = settings | {"detector": settings["detector"] | {"nodes": 2}}
    run = new_run("two_nodes", two)
    add_annotations(run.folder, tiny_dataset)
    run.change_profile(
        lambda profile: profile["set-resources"]["detector"].update(slurm_partition="multi")
    )
    return run


def losses_of(folder):
    (line,) = (folder / DETECTOR / "metrics.json").read_text().splitlines()
    losses = {name: value for name, value in json.loads(line).items() if "loss" in name}
    assert len(losses) == 10
    return losses


def weights_of(folder):
    """Return the parameters; statistics of batch norm are another estimate with two processes."""
    model = torch.load(folder / MODEL, weights_only=True)["model"]
    return {name: value for name, value in model.items() if name.endswith(("weight", "bias"))}


def assert_same_weights(one, two):
    """Compare parameters, which differ by the order in which sums are rounded."""
    torch.testing.assert_close(weights_of(two), weights_of(one), rtol=1e-3, atol=1e-5)


def test_two_nodes_train_the_detector_of_one_process(run, alone):
    run.start(MODEL)
    run.finish()
    (job,) = run.jobs("detector")
    asked = [job[key] for key in ("JobState", "NodeList", "NumNodes", "NumCPUs", "TresPerNode")]
    assert asked == ["COMPLETED", "gpu[2-3]", "2", "96", "gres:gpu:8"]
    assert losses_of(run.folder) == pytest.approx(losses_of(alone), rel=1e-5, abs=1e-7)
    assert_same_weights(alone, run.folder)


def test_a_node_lost_in_a_training_of_two(cluster, run, alone):
    log = run.folder / "results/demo/logs/detectors/cuvler_round0.log"
    run.start(MODEL)
    job = run.wait_for_job("detector")
    run.wait_until((run.folder / DETECTOR / "checkpoint.pth").exists)
    processes = cluster.processes(job, "detector")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    cluster.run("crash", "gpu3")
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    # The process on the other node ends, and SLURM restarts the job when it has missed the node.
    run.wait_until(lambda: "another process of this training failed" in log.read_text())
    run.wait_until(lambda: cluster.nodes()["gpu3"].startswith("down"))
    cluster.run("boot", "gpu3")
    run.wait_until(lambda: not cluster.nodes()["gpu3"].startswith("down"))
    # Not after two minutes.
    time.sleep(15)
    for job in run.jobs("detector"):
        if job["JobState"] == "PENDING":
            cluster.update(f"JobId={job['JobId']}", "StartTime=now")
    run.finish()
    # If messages of the lost job reach the restarted one, Snakemake has submitted another.
    assert run.jobs("detector")[-1]["JobState"] == "COMPLETED"
    assert re.search(r"training on 6 images, iterations [369] to 12", log.read_text())
    assert_same_weights(alone, run.folder)
