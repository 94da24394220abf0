import pytest
import torch

from cuvler.devices import check_gpus, find_device
from cuvler.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are so many GPUs."""

    def gpus(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return gpus


def test_auto_is_the_gpu_if_there_is_one(gpus):
    gpus(0)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    gpus(2)
    assert find_device("auto") == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (0, "cuda", "torch finds no GPU here; choose cpu or auto"),
        (1, "cuda:1", "cuda:1: there are 1 GPUs"),
        (1, "gpu", "'gpu' is not a device; choose auto, cpu, cuda, "),
    ],
)
def test_devices_that_are_not_there_are_named(gpus, count, name, message):
    gpus(count)
    with pytest.raises(ConfigError, match=f"^device: {message}"):
        find_device(name)


def test_as_many_gpus_as_there_are(gpus):
    gpus(2)
    check_gpus(2)
    with pytest.raises(ConfigError, match=r"3 GPUs requested, 2 visible; num_gpus: 0"):
        check_gpus(3)
