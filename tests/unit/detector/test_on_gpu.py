"""The detector's code for GPUs, on a GPU that the CPU pretends to be."""

import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from cuvler.detector import load_detector
from cuvler.detector.checkpoints import save_model
from cuvler.detector.config import build_detector, load_detector_config
from cuvler.detector.train import train_detector

from ..pretend_gpu import GPU, pretended_gpu

pytestmark = pytest.mark.usefixtures("one_thread")


class ReachedBackwardError(Exception):
    """Autograd's engine looks for a driver: iterations end where it would begin."""


@pytest.fixture
def first_loss(tiny_dataset, tiny_overrides, tmp_path, monkeypatch):
    """The total loss of the first iteration of a training with copy-paste and soft targets."""

    def stop(loss):
        raise ReachedBackwardError(loss)

    def run(num_gpus, *, mixed_precision=False):
        cfg = load_detector_config("demo", num_gpus=num_gpus, overrides=tiny_overrides)
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.SOLVER.AMP.ENABLED = mixed_precision
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "backward", stop)
            with pytest.raises(ReachedBackwardError) as reached:
                train_detector(cfg, *tiny_dataset, tmp_path / str(num_gpus), num_gpus=num_gpus)
        (loss,) = reached.value.args
        return loss

    return run


@pytest.mark.slow
def test_an_iteration_has_the_losses_of_the_cpu(first_loss, monkeypatch):
    expected = first_loss(0).item()
    with pretended_gpu(monkeypatch):
        loss = first_loss(1)
        assert loss.is_cuda
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        # Of other proposals, because their scores are rounded.
        scaled = first_loss(1, mixed_precision=True)
        assert scaled.item() / 65536 == pytest.approx(expected, rel=0.1)


def test_predictions_are_the_cpus(tiny_dataset, tiny_overrides, tmp_path, monkeypatch):
    cfg = load_detector_config("demo", num_gpus=0, overrides=tiny_overrides)
    torch.manual_seed(0)
    save_model(build_detector(cfg), tmp_path / "model_final.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    image = Image.open(tiny_dataset[1] / "1.png")
    expected = load_detector(tmp_path, device="cpu")(image)
    with pretended_gpu(monkeypatch):
        detector = load_detector(tmp_path, device="cuda")
        assert detector.model.device == GPU
        found = detector(image)
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.pred_masks, expected.pred_masks)
