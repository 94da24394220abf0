import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from cuvler.detector import Detector, load_detector, train
from cuvler.detector.checkpoints import load_state, save_model
from cuvler.detector.config import load_detector_config
from cuvler.detector.data import training_loader
from cuvler.detector.hooks import CHECKPOINT
from cuvler.detector.loops import Loop
from cuvler.detector.sample_sheet import draw_samples
from cuvler.detector.solver import predictor_learning_rate
from cuvler.detector.train import fingerprint, train_detector
from cuvler.detector.training_annotations import read_annotations
from cuvler.errors import ConfigError, DataError

# detectron2's writer does not close the metrics of an interrupted training.
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tiny_dataset, tiny_overrides, tmp_path):
    """Train a tiny detector for seven iterations; return its folder."""

    def run(name="run", *overrides, weights="", **options):
        iterations = ("SOLVER.MAX_ITER", "7")
        cfg = load_detector_config(
            "demo", num_gpus=0, overrides=(*tiny_overrides, *iterations, *overrides)
        )
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.MODEL.WEIGHTS = str(weights)
        annotations, root = tiny_dataset
        train_detector(cfg, annotations, root, tmp_path / name, num_gpus=0, **options)
        return tmp_path / name

    return run


def weights_of(folder):
    return load_state(folder / "model_final.pth")["model"]


def equal(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def iterations_of(folder):
    lines = (folder / "metrics.json").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def stop_at(monkeypatch, iteration):
    """Raise an exception at an iteration, as for a full disk."""
    step = train.Trainer.run_step

    def stopping_step(trainer):
        if trainer.iter == iteration:
            raise KeyboardInterrupt
        step(trainer)

    monkeypatch.setattr(train.Trainer, "run_step", stopping_step)


def test_training_writes_model_config_metrics_and_events(run):
    folder = run()
    assert (folder / "model_final.pth").exists()
    assert not (folder / CHECKPOINT).exists()
    assert iterations_of(folder) == [6]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    record = json.loads((folder / "metrics.json").read_text())
    assert math.isfinite(record["total_loss"])
    # A step at 4 of 7, after a warm-up of 2: the last rate is a tenth of the base rate.
    assert record["lr"] == pytest.approx(0.0001)
    assert "CATEGORY_IDS" in (folder / "config.yaml").read_text()


@UNCLOSED
def test_augmented_png_shows_the_first_batch(run, tiny_dataset, monkeypatch):
    folder = run()
    cfg = load_detector_config(folder / "config.yaml", num_gpus=0)
    cfg.DATALOADER.NUM_WORKERS = 0
    batch = next(iter(training_loader(read_annotations(*tiny_dataset), cfg, seed=0)))
    expected = np.asarray(draw_samples(batch))
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "augmented.png")), expected)
    # Of the first batch of the training, even if resumed.
    (folder / "model_final.pth").unlink()
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run()
    (folder / "augmented.png").write_bytes(b"as it was")
    run()
    assert (folder / "augmented.png").read_bytes() == b"as it was"


def test_a_config_that_changed_after_the_training_is_said(run, caplog):
    folder = run()
    load_detector(folder, device="cpu")
    assert "config.yaml" not in caplog.text
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("SCORE_THRESH_TEST: 0.", "SCORE_THRESH_TEST: 1."))
    load_detector(folder, device="cpu")
    assert "run/config.yaml: has changed since the training wrote it" in caplog.text
    path.write_text(path.read_text().replace("POOLER_TYPE: ROIAlignV2", "POOLER_TYPE: ROIAlig.V2"))
    with pytest.raises(ConfigError, match=r"run/config\.yaml: .*pooler type: ROIAlig\.V2"):
        load_detector(folder, device="cpu")


def test_results_depend_on_the_seed(run):
    assert equal(weights_of(run("one")), weights_of(run("two")))
    assert not equal(weights_of(run("one")), weights_of(run("three", seed=1)))


@UNCLOSED
def test_a_resumed_training_equals_an_uninterrupted_one(run, monkeypatch):
    whole = run("whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    folder = whole.parent / "stopped"
    assert not (folder / "model_final.pth").exists()
    assert load_state(folder / CHECKPOINT)["trainer"]["iteration"] == 2
    (folder / "metrics.json").open("a").write('{"iteration": 4}\n{"itera')
    run("stopped")
    assert equal(weights_of(folder), weights_of(whole))
    assert iterations_of(folder) == iterations_of(whole)
    assert not (folder / CHECKPOINT).exists()


@UNCLOSED
def test_resuming_on_other_cores_keeps_the_number_of_threads(run, monkeypatch):
    """Rounding, and so the weights, depends on the number of threads."""
    one = run("one")
    torch.set_num_threads(2)
    whole = run("whole")
    assert not equal(weights_of(whole), weights_of(one))
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    torch.set_num_threads(1)
    run("stopped")
    assert equal(weights_of(whole.parent / "stopped"), weights_of(whole))
    assert torch.get_num_threads() == 1


@UNCLOSED
def test_a_damaged_checkpoint_is_named(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    path = tmp_path / "stopped" / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"checkpoint\.pth: damaged .*from the beginning"):
        run("stopped")
    torch.save({"model": {}}, path)
    with pytest.raises(DataError, match=r"checkpoint\.pth: .*run missing"):
        run("stopped")


def test_the_checkpoint_of_another_training_is_ignored(run, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    folder = run("stopped", seed=3)
    assert f"stopped/{CHECKPOINT}: " in caplog.text
    assert equal(weights_of(folder), weights_of(run("fresh", seed=3)))


def test_a_finished_training_can_be_repeated(run):
    folder = run()
    (folder / "model_final.pth").unlink()
    run()
    assert iterations_of(folder) == [6]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_initial_weights_are_used(run, tmp_path):
    first = run("first")
    rate = ("SOLVER.BASE_LR", "1e-12")
    second = run("second", *rate, weights=first / "model_final.pth")
    one, two = weights_of(first), weights_of(second)
    for name in one:
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=0)
    with pytest.raises(DataError, match=r"none\.pth"):
        run("third", weights=tmp_path / "none.pth")


def test_precise_batch_norm_is_the_mean_over_batches(run):
    options = ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "4")
    plain, precise = weights_of(run("plain")), weights_of(run("precise", *options))
    for name in plain:
        same = torch.equal(plain[name], precise[name])
        assert same is not ("running" in name or "num_batches" in name), name


def test_precise_batch_norm_sees_no_pasted_images(run):
    """With fixed weights, so that the statistics depend only on the images."""
    options = ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2")
    options += ("SOLVER.BASE_LR", "0.0", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()")
    plain = run("plain", *options, "INPUT.COPY_PASTE.ENABLED", "False")
    assert equal(weights_of(run("pasted", *options)), weights_of(plain))


@pytest.mark.parametrize("detector_config", ["demo", "demo_semi_supervised", "demo_cutler"])
def test_mixed_precision_leaves_losses_in_full_precision(
    tiny_dataset, tiny_overrides, detector_config
):
    """With the CPU's 16-bit floats, which are coarser than a GPU's."""
    cfg = load_detector_config(detector_config, num_gpus=0, overrides=tiny_overrides)
    cfg.DATALOADER.NUM_WORKERS = 0
    model = build_model(cfg)
    records = read_annotations(*tiny_dataset)
    batch = next(iter(training_loader(records, cfg, seed=0)))
    with EventStorage(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
    sum(losses.values()).backward()
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(torch.isfinite(loss) for loss in losses.values())
    gradients = {parameter.grad.dtype for parameter in model.parameters()}
    assert gradients == {torch.float32}
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_steps_skipped_by_mixed_precision_do_not_warn(run, monkeypatch):
    """The first step: its gradients overflow in 16 bits, and torch warns about the schedule."""
    step = Loop.run_step
    monkeypatch.setattr(Loop, "run_step", lambda loop: step(loop) if loop.iter else None)
    record = json.loads((run() / "metrics.json").read_text())
    assert (record["iteration"], record["lr"]) == (6, pytest.approx(0.0001))


def test_missing_gpus_are_refused(tiny_dataset, tmp_path):
    count = torch.cuda.device_count() + 1
    cfg = load_detector_config("demo", num_gpus=0)
    with pytest.raises(ConfigError, match=f"{count} GPUs requested"):
        train_detector(cfg, *tiny_dataset, tmp_path / "run", num_gpus=count)


def test_another_order_of_channels_is_refused(tiny_dataset, tmp_path):
    cfg = load_detector_config("demo", num_gpus=0, overrides=["INPUT.FORMAT", "BGR"])
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT: BGR, .* set it to RGB"):
        train_detector(cfg, *tiny_dataset, tmp_path / "run", num_gpus=0)
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT: BGR, .* set it to RGB"):
        Detector(cfg, tmp_path / "none.pth")


def test_predictors_have_a_higher_learning_rate():
    model = build_model(load_detector_config("demo", num_gpus=0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    predictor_learning_rate(optimizer, model, 4.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    fast = {name for name, p in model.named_parameters() if rates[id(p)] == pytest.approx(0.4)}
    assert len(rates) == len(list(model.parameters()))
    assert fast == {
        *(
            f"roi_heads.box_predictor.{stage}.{layer}.{kind}"
            for stage in range(3)
            for layer in ("cls_score", "bbox_pred")
            for kind in ("weight", "bias")
        ),
        "roi_heads.mask_head.predictor.weight",
        "roi_heads.mask_head.predictor.bias",
    }


def test_a_failed_checkpoint_keeps_the_previous_one(run, monkeypatch, tmp_path):
    path = tmp_path / "model.pth"
    save_model(torch.nn.Linear(2, 2), path)
    previous = path.read_bytes()

    def full_disk(state, stream):
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(torch.nn.Linear(2, 2), path)
    assert path.read_bytes() == previous
    assert list(tmp_path.glob(".*.part")) == []


def test_settings_that_do_not_invalidate_a_checkpoint(tmp_path):
    annotations = "00ff"
    cfg = load_detector_config("demo", num_gpus=0)
    first = fingerprint(cfg, annotations)
    cfg.DATALOADER.NUM_WORKERS = 17
    cfg.SOLVER.CHECKPOINT_PERIOD = 1
    cfg.OUTPUT_DIR = "elsewhere"
    assert cfg.MODEL.RESNETS.NORM == cfg.MODEL.FPN.NORM == "BN"
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "SyncBN"  # on several GPUs
    assert fingerprint(cfg, annotations) == first
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert fingerprint(cfg, annotations) != first
    cfg = load_detector_config("demo", num_gpus=0)
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"one")
    second = fingerprint(cfg, annotations)
    (tmp_path / "weights.pth").write_bytes(b"two")
    assert len({first, second, fingerprint(cfg, annotations)}) == 3
    cfg.MODEL.WEIGHTS = ""
    assert fingerprint(cfg, "00fe") != first


@pytest.mark.slow
def test_a_killed_training_ends_like_an_uninterrupted_one(
    tiny_dataset, tiny_overrides, run, tmp_path
):
    annotations, root = tiny_dataset
    folder = tmp_path / "killed"
    command = [
        *(sys.executable, "-m", "cuvler.cli", "detector"),
        *(
            "--annotations",
            annotations,
            "--image-root",
            root,
            "--detector-config",
            "demo",
            "--num-gpus",
            "0",
        ),
        *("--workers", "1", "--output", folder, *tiny_overrides, "SOLVER.MAX_ITER", "60"),
    ]
    command = [sys.executable, "-c", "from cuvler.cli import main; main()", *map(str, command[3:])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        deadline = time.monotonic() + 300
        while not (folder / CHECKPOINT).exists():
            assert process.poll() is None, "it ended before its first checkpoint"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (folder / "model_final.pth").exists()
    subprocess.run(command, env=environment, check=True)
    whole = run("whole", "SOLVER.MAX_ITER", "60")
    assert iterations_of(folder)[-1] == iterations_of(whole)[-1] == 59
    assert equal(weights_of(folder), weights_of(whole))


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a given size in kB; return its folder."""
    mounted = []

    def mount(size):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


# Full when TensorBoard starts, at its or the metrics' later lines, at a checkpoint, at the model.
@pytest.mark.slow
@pytest.mark.parametrize(("size", "period"), [(280, 1000), (286, 1000), (1200, 3), (900, 1000)])
def test_a_full_disk_during_training_is_one_message(
    tiny_dataset, tiny_overrides, small_disk, size, period
):
    annotations, root = tiny_dataset
    folder = small_disk(size) / "run"
    more = ["SOLVER.CHECKPOINT_PERIOD", str(period), "SOLVER.MAX_ITER", "22"]
    result = subprocess.run(
        [
            *(sys.executable, "-c", "from cuvler.cli import main; main()", "detector"),
            *("--annotations", annotations, "--image-root", root, "--detector-config", "demo"),
            *("--num-gpus", "0", "--workers", "0", "--output", folder, *tiny_overrides, *more),
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {folder}")
    assert "cannot be written (No space left on device)" in last
