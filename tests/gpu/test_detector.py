"""The detector on GPUs: mixed precision, synchronised and precise batch norm, several processes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.modeling import build_model

from cuvler import masks
from cuvler.detector import load_detector, train
from cuvler.detector.checkpoints import load_state
from cuvler.detector.config import load_detector_config
from cuvler.detector.hooks import CHECKPOINT
from cuvler.detector.train import train_detector
from cuvler.predictions import Options, predict_dataset

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

PACE = (
    *("SOLVER.MAX_ITER", "6", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "2", "SOLVER.BASE_LR", "0.001"),
    *("INPUT.MIN_SIZE_TRAIN", "(96, 128)", "TEST.PRECISE_BN.NUM_ITER", "4"),
)


@pytest.fixture
def scenes(tmp_path):
    """Eight images of 160 x 128 pixels with a bright rectangle: (annotations, root)."""
    root = tmp_path / "images"
    root.mkdir()
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(1, 9):
        pixels = generator.integers(0, 60, (128, 160, 3), dtype=np.uint8)
        mask = np.zeros((128, 160), dtype=bool)
        mask[20 + index : 80, 30 : 90 + index] = True
        pixels[mask] += 150
        Image.fromarray(pixels).save(root / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": 128, "width": 160})
        rle = masks.encode(mask)
        annotations.append(
            {"id": index, "image_id": index, "category_id": 1, "score": 0.8, "segmentation": rle}
            | masks.geometry(rle)
        )
    path = tmp_path / "annotations.json"
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    path.write_text(json.dumps(content))
    return path, root


def make_config(*overrides, num_gpus=1):
    """The published config with ResNet-50, at a small image size and for six iterations."""
    cfg = load_detector_config("votecut_cad", num_gpus=num_gpus, overrides=(*PACE, *overrides))
    cfg.DATALOADER.NUM_WORKERS = 1
    return cfg


def last_metrics(folder):
    return json.loads((folder / "metrics.json").read_text().splitlines()[-1])


def test_the_published_config_trains_in_mixed_precision(scenes, tmp_path, monkeypatch):
    loops = []
    build = train.Trainer._build_hooks
    monkeypatch.setattr(
        train.Trainer,
        "_build_hooks",
        lambda trainer, *args: loops.append(trainer.loop) or build(trainer, *args),
    )
    cfg = make_config()
    assert cfg.SOLVER.AMP.ENABLED
    train_detector(cfg, *scenes, tmp_path / "run", num_gpus=1)
    assert loops[0].mixed_precision
    assert loops[0].scaler.get_scale() > 1
    state = load_state(tmp_path / "run" / "model_final.pth")["model"]
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    assert all(torch.isfinite(value).all() for value in state.values())
    metrics = last_metrics(tmp_path / "run")
    assert metrics["iteration"] == 5
    assert np.isfinite(metrics["total_loss"])


def test_a_stopped_training_resumes_with_its_scaler(scenes, tmp_path, monkeypatch):
    step = train.Trainer.run_step

    def stopping_step(trainer):
        if trainer.iter == 5:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "run_step", stopping_step)
        with pytest.raises(KeyboardInterrupt):
            train_detector(make_config(), *scenes, tmp_path / "run", num_gpus=1)
    checkpoint = load_state(tmp_path / "run" / CHECKPOINT)
    assert checkpoint["trainer"]["iteration"] == 3
    assert checkpoint["trainer"]["loop"]["grad_scaler"]["scale"] > 0
    train_detector(make_config(), *scenes, tmp_path / "run", num_gpus=1)
    assert last_metrics(tmp_path / "run")["iteration"] == 5


def test_precise_batch_norm_changes_statistics_alone(scenes, tmp_path):
    for name, enabled in (("plain", "False"), ("precise", "True")):
        cfg = make_config("TEST.PRECISE_BN.ENABLED", enabled, "SOLVER.BASE_LR", "1e-12")
        train_detector(cfg, *scenes, tmp_path / name, num_gpus=1)
    plain, precise = (
        load_state(tmp_path / name / "model_final.pth")["model"] for name in ("plain", "precise")
    )
    for name, value in plain.items():
        if "num_batches" not in name:
            same = torch.allclose(value, precise[name], atol=1e-6)
            assert same is not ("running" in name), name


@two_gpus
def test_two_gpus_synchronise_their_batch_norm(scenes, tmp_path):
    cfg = make_config(num_gpus=2)
    layers = {type(layer) for layer in build_model(cfg).modules()}
    assert any("Sync" in layer.__name__ for layer in layers)
    train_detector(cfg, *scenes, tmp_path / "run", num_gpus=2)
    assert last_metrics(tmp_path / "run")["iteration"] == 5
    state = load_state(tmp_path / "run" / "model_final.pth")["model"]
    assert not any(name.startswith("module.") for name in state)


@pytest.fixture
def detector(scenes, tmp_path):
    train_detector(make_config(), *scenes, tmp_path / "detector", num_gpus=1)
    return tmp_path / "detector"


def test_predictions_are_the_cpus(detector, scenes):
    _, root = scenes
    image = Image.open(root / "1.png")
    # By default, convolutions on a GPU round to TF32 (10 bits).
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = [load_detector(detector, device=device)(image) for device in ("cpu", "cuda")]
    count = min(len(one) for one in found)
    assert count > 0
    # Sorted by score; equal scores may be in another order.
    scores = [one.scores[:count] for one in found]
    torch.testing.assert_close(*scores, atol=1e-3, rtol=0)
    assert all(one.pred_masks.device.type == "cpu" for one in found)


@two_gpus
def test_two_gpus_write_what_one_writes(detector, scenes, tmp_path):
    annotations, root = scenes
    options = Options(batch_size=2, workers=1)
    for name, devices in (("one", ["cuda:0"]), ("two", ["cuda:0", "cuda:1"])):
        output = tmp_path / f"{name}.json"
        predict_dataset(detector, annotations, root, output, devices=devices, options=options)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert [record["image_id"] for record in one] == [record["image_id"] for record in two]
    for first, second in zip(one, two, strict=True):
        assert first["score"] == pytest.approx(second["score"], abs=1e-3)
