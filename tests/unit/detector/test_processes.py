"""Several processes train one detector, started by detectron2, torchrun or srun."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from cuvler.detector import processes, train, training_annotations
from cuvler.detector.checkpoints import load_state
from cuvler.detector.config import load_detector_config
from cuvler.detector.hooks import CHECKPOINT
from cuvler.detector.processes import Place, find_place, run_processes
from cuvler.detector.train import train_detector
from cuvler.errors import ConfigError, CuvlerError, DataError
from cuvler.evaluation import evaluate_all
from cuvler.predictions import Options, predict_dataset

TORCHRUN = {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}
SRUN = {
    "SLURM_JOB_ID": "70123",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "gpu[03-05,11],cpu1",
}


def test_a_single_command():
    assert find_place({}) == Place()
    # A job script, or a step of one task, of a job that has more nodes.
    alone = {"SLURM_NNODES": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    assert find_place(alone) == find_place(alone | {"SLURM_STEP_NUM_TASKS": "1"}) == Place()
    # RANK and WORLD_SIZE set by something other than torchrun.
    assert find_place({"RANK": "1", "WORLD_SIZE": "2"}) == Place()


def test_torchrun_starts_a_command_for_each_gpu():
    place = find_place(TORCHRUN | SRUN)
    assert place == Place(16, 11, "env://", local_rank=3, local_size=8)
    assert place.machines(8) == 2
    assert place.machines(0) == 16
    with pytest.raises(ConfigError, match=r"8 processes.*num_gpus is 4"):
        place.machines(4)


def test_srun_starts_a_command_on_each_machine():
    place = find_place(SRUN, str)
    assert place == Place(4, 2, "tcp://gpu03:20123")
    assert place.machines(8) == place.machines(0) == 4
    assert find_place(SRUN, {"gpu03": "10.0.0.3"}.get).url == "tcp://10.0.0.3:20123"
    own = SRUN | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "29500"}
    assert find_place(own, str).url == "tcp://10.0.0.7:29500"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[007-012]", "gpu007"),
        ("gpu[3,9-12],cpu[1-4]", "gpu3"),
        ("rack[2-3]node[10,11]-ib", "rack2node10-ib"),
    ],
)
def test_the_first_node_of_slurms_lists(nodes, first):
    assert find_place(SRUN | {"SLURM_STEP_NODELIST": nodes}, str).url == f"tcp://{first}:20123"


def lose(how):
    """The second process dies or hangs, and the first waits for it."""
    if torch.distributed.get_rank() == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(30)
    torch.distributed.all_reduce(torch.ones(1))


def wait_for_the_other(place, how, reports):
    processes.TIMEOUT = timedelta(seconds=2)
    try:
        run_processes(lose, 0, place, (how,))
    except CuvlerError as error:
        reports.put(str(error))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [("killed", "by peer"), ("hangs", "Timed out"), ("does not come", "waiting for clients")],
)
def test_a_process_does_not_wait_for_ever(free_port, how, reason):
    context = torch.multiprocessing.get_context("fork")
    reports = context.SimpleQueue()
    places = [Place(2, rank, f"tcp://127.0.0.1:{free_port}") for rank in (0, 1)]
    started = [
        context.Process(target=wait_for_the_other, args=(place, how, reports))
        for place in places[: 1 if how == "does not come" else 2]
    ]
    for process in started:
        process.start()
    try:
        started[0].join(timeout=60)
        assert started[0].exitcode == 0
        report = reports.get()
        assert reason in report
        assert "resumes from the last checkpoint" in report
    finally:
        for process in started:
            process.kill()


def fail(message):
    raise DataError(message)


def test_errors_of_a_single_process_are_raised():
    with pytest.raises(DataError, match="no such file"):
        run_processes(fail, 0, Place(), ("no such file",))


def test_a_started_process_logs_its_error_without_traceback(monkeypatch, caplog):
    def launch(function, num_gpus, **options):
        assert num_gpus == 2
        assert options.pop("args") == (fail, "no such file")
        assert options.pop("timeout") == processes.TIMEOUT
        assert options == {"num_machines": 3, "machine_rank": 1, "dist_url": "tcp://a:1"}
        try:
            function(fail, "no such file")
        except SystemExit as error:
            raise processes.ProcessExitedException(
                "process 1 terminated", error_index=1, error_pid=5, exit_code=error.code
            ) from error

    monkeypatch.setattr(processes, "launch", launch)
    with pytest.raises(CuvlerError, match="process 1 terminated; its message is above"):
        run_processes(fail, 2, Place(3, 1, "tcp://a:1"), ("no such file",))
    assert "no such file" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_machine_that_does_not_come_is_reported(monkeypatch):
    def launch(*_, **__):
        lines = (
            "Traceback ...\n  in _distributed_worker\ntorch.distributed.DistStoreError: Timed out"
        )
        raise processes.ProcessRaisedException(f"{lines}\n", error_index=0, error_pid=5)

    monkeypatch.setattr(processes, "launch", launch)
    with pytest.raises(CuvlerError, match=r"its machine is lost \(Timed out\)"):
        run_processes(fail, 2, Place(2, 0, "tcp://a:1"), ())


def test_processes_that_see_different_checkpoints_stop(
    tiny_dataset, tiny_overrides, tmp_path, monkeypatch
):
    def all_gather(value):
        return [value, value + 3 if isinstance(value, int) else value]

    monkeypatch.setattr("detectron2.utils.comm.all_gather", all_gather)
    cfg = load_detector_config("demo", num_gpus=0, overrides=tiny_overrides)
    with pytest.raises(DataError, match=CHECKPOINT):
        train_detector(cfg, *tiny_dataset, tmp_path / "run", num_gpus=0)


def test_the_first_process_reads_annotations_for_all_machines(tiny_dataset, tmp_path, monkeypatch):
    """Two processes on two machines, run in turn."""
    comm = training_annotations.comm
    read = partial(training_annotations.read_shared_annotations, *tiny_dataset)
    first = read(folder=tmp_path)
    monkeypatch.setattr(training_annotations, "read_annotations", None)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", lambda nothing: [first.origin, nothing])
    other = read(folder=tmp_path)
    assert list(other) == list(first)
    assert other.categories == first.categories
    np.testing.assert_array_equal(other.wide, first.wide)
    # A network file system shows it to the other machine with a delay.
    file = tmp_path / training_annotations.FILE
    file.rename(tmp_path / "hidden")
    monkeypatch.setattr(
        training_annotations.time, "sleep", lambda _: (tmp_path / "hidden").rename(file)
    )
    assert read(folder=tmp_path).origin == first.origin
    monkeypatch.setattr(training_annotations, "_LATENCY", -1)
    with pytest.raises(DataError, match=r"own.annotations\.arrow.* shared by all machines"):
        read(folder=tmp_path / "own")
    monkeypatch.setattr(comm, "all_gather", lambda nothing: [{**first.origin, "form": 0}, nothing])
    with pytest.raises(DataError, match=r"annotations\.arrow.* shared by all machines"):
        read(folder=tmp_path)


def weights_of(folder):
    return load_state(folder / "model_final.pth")["model"]


def scores_of(folder, annotations, root):
    """Predict in one process and return box AP and mask AR100."""
    results = folder / "results.json"
    predict_dataset(folder, annotations, root, results, options=Options(batch_size=1, workers=0))
    scores = evaluate_all(annotations, results)
    return scores["bbox"]["AP"], scores["segm"]["AR100"]


@pytest.mark.slow
def test_torchrun_and_srun_train_the_same_detector(
    tiny_dataset, tiny_overrides, free_port, tmp_path
):
    annotations, root = tiny_dataset

    precise = ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "5")

    def command(folder):
        words = [
            "detector",
            "--annotations",
            annotations,
            "--image-root",
            root,
            "--detector-config",
            "demo",
        ]
        words += ["--num-gpus", "0", "--workers", "0", "--output", folder]
        words += ["--evaluate", annotations, root, *tiny_overrides]
        return [*map(str, words), "SOLVER.MAX_ITER", "5", *precise]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    cuvler = Path(sys.executable).parent / "cuvler"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--master-port", free_port, "--no-python", cuvler]
    launcher += command(tmp_path / "torchrun")
    subprocess.run([str(word) for word in launcher], env=environment, check=True, timeout=600)

    tasks = []
    for rank in (0, 1):
        step = SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank)}
        step |= {"SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": free_port}
        task = [str(cuvler), *command(tmp_path / "srun")]
        tasks.append(subprocess.Popen(task, env=environment | step))
    assert [task.wait(timeout=600) for task in tasks] == [0, 0]

    one, two = weights_of(tmp_path / "torchrun"), weights_of(tmp_path / "srun")
    assert all(torch.equal(one[name], two[name]) for name in one)
    for folder in ("torchrun", "srun"):
        lines = (tmp_path / folder / "metrics.json").read_text().splitlines()
        (line,) = map(json.loads, lines)
        assert line["iteration"] == 4
        assert (line["bbox/AP"], line["segm/AR100"]) == scores_of(tmp_path / folder, *tiny_dataset)
        assert len(list((tmp_path / folder).glob("events.out.tfevents.*"))) == 1


def train_one_of_two(rank, url, cfg, annotations, root, output):
    torch.set_num_threads(1)
    trained = []
    finish = train.Trainer.after_train
    train.Trainer.after_train = lambda trainer: (finish(trainer), trained.append(trainer.model))
    place = Place(2, rank, url)
    train_detector(cfg, annotations, root, output, num_gpus=0, place=place)
    torch.save(dict(trained[0].named_parameters()), output / f"rank{rank}.pth")


# The processes inherit the filters; torch warns in them about its settings and the machine.
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_two_processes_train_the_detector_of_one(
    tiny_dataset, tiny_overrides, even, free_port, tmp_path
):
    overrides = (*tiny_overrides, *even, "SOLVER.MAX_ITER", "3")
    cfg = load_detector_config("demo", num_gpus=0, machines=2, overrides=overrides)
    cfg.DATALOADER.NUM_WORKERS = 0
    url = f"tcp://127.0.0.1:{free_port}"
    torch.multiprocessing.start_processes(
        train_one_of_two, args=(url, cfg, *tiny_dataset, tmp_path), nprocs=2, start_method="fork"
    )
    train_detector(cfg, *tiny_dataset, tmp_path / "alone", num_gpus=0)
    one, two = (torch.load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    final, alone = weights_of(tmp_path), weights_of(tmp_path / "alone")
    for name in one:
        assert torch.equal(one[name], two[name])
        own = name.removeprefix("module.")
        assert torch.equal(one[name].data, final[own])
        torch.testing.assert_close(final[own], alone[own], rtol=1e-4, atol=1e-6)
    assert losses_of(tmp_path) == pytest.approx(losses_of(tmp_path / "alone"), rel=1e-5, abs=1e-7)


def losses_of(folder):
    (line,) = (folder / "metrics.json").read_text().splitlines()
    losses = {name: value for name, value in json.loads(line).items() if "loss" in name}
    assert len(losses) == 10
    return losses
