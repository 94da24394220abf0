"""Batches with infinite or NaN losses are skipped, named and counted."""

import json

import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")


from cuvler.detector import train, training_annotations
from cuvler.detector.checkpoints import load_state
from cuvler.detector.config import load_detector_config
from cuvler.detector.loops import Loop, TrainingDivergedError
from cuvler.detector.processes import Place
from cuvler.detector.train import train_detector

# detectron2's writer does not close the metrics of an interrupted training.
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def spoil(tiny_dataset, monkeypatch):
    """Make the losses of some of the six images infinite, by soft targets of the largest float.

    No file may have such a score, so they take the place of another when the file has been read.
    """
    annotations, _ = tiny_dataset
    other = 0.125

    def spoil(*images):
        content = json.loads(annotations.read_text())
        for annotation in content["annotations"]:
            annotation["score"] = other if annotation["image_id"] in images else 0.8
        annotations.write_text(json.dumps(content))

    read = training_annotations._instance

    def with_largest(*arguments):
        instance = read(*arguments)
        return instance._replace(score=3e38) if instance.score == other else instance

    monkeypatch.setattr(training_annotations, "_instance", with_largest)
    return spoil


def make_config(*overrides, machines=1):
    iterations = ("SOLVER.MAX_ITER", "9", "INPUT.COPY_PASTE.ENABLED", "False")
    cfg = load_detector_config(
        "demo", num_gpus=0, machines=machines, overrides=(*iterations, *overrides)
    )
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


@pytest.fixture
def run(tiny_dataset, tiny_overrides, tmp_path):
    """Train a tiny detector on batches of two, so that three batches are an epoch."""

    def run(name="run", *overrides, mixed_precision=False):
        cfg = make_config(*tiny_overrides, *overrides)
        cfg.SOLVER.AMP.ENABLED = mixed_precision
        train_detector(cfg, *tiny_dataset, tmp_path / name, num_gpus=0)
        return tmp_path / name

    return run


def weights_of(folder):
    return load_state(folder / "model_final.pth")["model"]


def count_in(folder):
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return max(line.get("skipped_batches", 0) for line in lines)


def state_of(trainer):
    """Everything that an iteration may change: weights, batch norm, momenta, gradient scale."""
    momenta = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    tensors = [*trainer.model.state_dict().values(), *momenta]
    return [t.clone() for t in tensors], trainer.loop.scaler.state_dict()


def same(one, two):
    equal = len(one[0]) == len(two[0]) and all(map(torch.equal, one[0], two[0]))
    return equal and one[1] == two[1]


@pytest.fixture
def skipped(monkeypatch):
    """The skipped iterations, after checking that each changed nothing."""
    iterations = []
    step = train.Trainer.run_step

    def watching_step(trainer):
        before, count = state_of(trainer), trainer.loop.skipped
        step(trainer)
        if trainer.loop.skipped > count:
            iterations.append(trainer.iter)
        assert same(before, state_of(trainer)) == (trainer.loop.skipped > count)

    monkeypatch.setattr(train.Trainer, "run_step", watching_step)
    return iterations


def test_a_batch_without_a_finite_loss_is_skipped(run, spoil, skipped, caplog):
    spoil(2)
    folder = run()
    # One of the three batches of every epoch.
    assert [iteration // 3 for iteration in skipped] == [0, 1, 2]
    named = [record.message for record in caplog.records if "is skipped" in record.message]
    assert len(named) == 3
    assert all("2.png" in message and "became infinite or NaN" in message for message in named)
    assert f"iteration {skipped[-1]}: 3 batches skipped so far" in caplog.text
    assert all(torch.isfinite(value).all() for value in weights_of(folder).values())
    assert count_in(folder) == 3
    (events,) = folder.glob("events.out.tfevents.*")
    assert b"skipped_batches" in events.read_bytes()


def test_skipped_batches_keep_the_gradient_scale(run, spoil, skipped):
    """With the CPU's 16-bit floats; ``skipped`` checks the scale."""
    spoil(2)
    assert count_in(run(mixed_precision=True)) == len(skipped) == 3


def test_a_training_without_skipped_batches_counts_zero(run, skipped):
    assert count_in(run()) == 0
    assert skipped == []


@pytest.fixture
def dark_nan(monkeypatch):
    """A layer before the backbone that returns NaN for a black image."""
    build = train.build_detector

    def build_with_layer(cfg):
        model = build(cfg)
        model.backbone.register_forward_pre_hook(lambda _, inputs: divide_by_range(*inputs))
        return model

    def divide_by_range(images):
        corner = images[:, :1, :8, :8]
        span = corner.amax((2, 3), keepdim=True) - corner.amin((2, 3), keepdim=True)
        return images * (span / span)

    monkeypatch.setattr(train, "build_detector", build_with_layer)


@pytest.fixture
def darken(tiny_dataset):
    _, root = tiny_dataset
    return lambda index: Image.new("RGB", (64, 64)).save(root / f"{index}.png")


@pytest.mark.usefixtures("dark_nan")
@pytest.mark.parametrize("precise", ["False", "True"])
def test_nan_in_batch_norm_keeps_its_statistics(run, darken, skipped, caplog, precise):
    darken(4)
    options = ("TEST.PRECISE_BN.ENABLED", precise, "TEST.PRECISE_BN.NUM_ITER", "5")
    folder = run("run", *options)
    assert len(skipped) == 3
    named = [record.message for record in caplog.records if "is skipped" in record.message]
    # One or two of the batches for precise batch norm have it.
    assert len(named) == 3 if precise == "False" else len(named) in (4, 5)
    assert all("4.png" in message for message in named)
    assert all(torch.isfinite(value).all() for value in weights_of(folder).values())


@UNCLOSED
def test_too_many_in_a_row_stop_training(run, spoil, skipped):
    spoil(*range(6))
    with pytest.raises(
        TrainingDivergedError,
        match=r"iteration 3, images .*\d\.png, .*\d\.png: .* 4 batches were skipped in a row, more "
        r"than SOLVER\.MAX_SKIPPED_IN_A_ROW \(3\).* Lower SOLVER\.BASE_LR",
    ):
        run("run", "SOLVER.MAX_SKIPPED_IN_A_ROW", "3")


@UNCLOSED
def test_too_many_in_total_stop_training_until_the_limit_is_raised(run, spoil, skipped):
    spoil(2)
    pace = ("SOLVER.CHECKPOINT_PERIOD", "2")
    with pytest.raises(TrainingDivergedError, match=r"3 .* in all, more than SOLVER.MAX_SKIPPED "):
        run("run", *pace, "SOLVER.MAX_SKIPPED", "2")
    assert len(skipped) == 2
    folder = run("run", *pace)
    # Resumes from the checkpoint, which has the number of skipped batches.
    assert len(skipped) == 3
    assert count_in(folder) == 3
    assert all(map(torch.equal, weights_of(folder).values(), weights_of(run("whole")).values()))


def train_one_of_two(rank, url, cfg, annotations, root, output):
    """Train; write the iterations that this process skipped, and its final weights."""
    torch.set_num_threads(1)
    trainers = []
    finish = train.Trainer.after_train
    train.Trainer.after_train = lambda trainer: (finish(trainer), trainers.append(trainer))
    skip, skipped = Loop._skip, []
    Loop._skip = lambda loop: (skipped.append((loop.iter, loop.model.broken)), skip(loop))
    train_detector(cfg, annotations, root, output, num_gpus=0, place=Place(2, rank, url))
    state = {"skipped": skipped, "weights": dict(trainers[0].model.state_dict())}
    torch.save(state, output / f"rank{rank}.pth")


# The processes inherit the filters; torch warns in them about its settings and the machine.
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("dark_nan")
@pytest.mark.slow
def test_all_processes_skip_the_same_batches(
    tiny_dataset, tiny_overrides, spoil, darken, free_port, tmp_path
):
    """One image has an infinite loss, another NaN in the forward pass, which detectron2 raises."""
    spoil(2)
    darken(4)
    options = ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "3")
    cfg = make_config(*tiny_overrides, *options, machines=2)
    torch.multiprocessing.start_processes(
        train_one_of_two,
        args=(f"tcp://127.0.0.1:{free_port}", cfg, *tiny_dataset, tmp_path),
        nprocs=2,
        start_method="fork",
    )
    one, two = (torch.load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    assert one["skipped"] == two["skipped"]
    # Three epochs of three batches, two images each: 2 and 4 are seen three times each.
    assert 3 <= len(one["skipped"]) <= 6
    for _, broken in one["skipped"]:
        assert "2.png" in broken or "4.png" in broken
    named = " ".join(broken for _, broken in one["skipped"])
    assert named.count("2.png") == named.count("4.png") == 3
    for name, value in one["weights"].items():
        assert value.isfinite().all(), name
        if "running" not in name:
            assert torch.equal(value, two["weights"][name]), name
    assert count_in(tmp_path) == len(one["skipped"])
