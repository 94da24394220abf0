"""The extraction's code for GPUs, on a GPU that the CPU pretends to be."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from cuvler.devices import Stream, on_device, without_tf32
from cuvler.eigenvectors import extraction, ncut
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.cuts import cut_repeatedly
from cuvler.eigenvectors.extraction import extract_shard
from cuvler.eigenvectors.features import load_backbone
from cuvler.eigenvectors.needs import Cuts, Eigenvectors
from cuvler.eigenvectors.vit import create_vit
from cuvler.errors import CuvlerError

from ..pretend_gpu import GPU, WrongOnGpuError, pretended_gpu

GOLDEN = Path(__file__).parents[2] / "reference" / "ncut" / "ncut.npz"
TINY = {"tiny": {"timm": "test_vit", "feature": "key", "size": 96}}


@pytest.fixture
def gpu(monkeypatch):
    with pretended_gpu(monkeypatch) as gpu:
        yield gpu


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(create_vit(backbone_spec("tiny", TINY)).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(5)]
    for name in names[:4]:
        image = Image.fromarray(rng.integers(0, 60, (120, 160, 3), np.uint8))
        ImageDraw.Draw(image).rectangle((20, 20, 60, 50), fill=tuple(rng.integers(90, 256, 3)))
        image.save(folder / name)
    return folder, pd.DataFrame({"image_id": range(5), "file_name": names})


def tiny(weights, device, precision="float32"):
    spec = backbone_spec("tiny", TINY)
    return load_backbone(spec, weights=weights, device=device, precision=precision)


@pytest.mark.parametrize("need", [Eigenvectors(), Cuts(2)], ids=["eigenvectors", "cuts"])
def test_extraction_gives_the_eigenvectors_of_the_cpu(images, weights, tmp_path, monkeypatch, need):
    folder, listing = images

    def extract(device):
        backbone = tiny(weights, device)
        output = tmp_path / f"{device}.zarr.zip"
        return extract_shard(listing, folder, backbone, output, need=need, tau=0.7, batch_size=2)

    expected = extract("cpu")
    with pretended_gpu(monkeypatch) as gpu:
        found = extract("cuda")
    assert found.status.tolist() == expected.status.tolist()
    cosines = (found.eigenvectors * expected.eigenvectors)[:4].sum(axis=(2, 3))
    assert np.abs(cosines).min() >= 0.9999
    # Copies, forward passes and solutions in a stream each; weights in the default one.
    assert len(gpu.streams) == 4


@pytest.mark.parametrize(
    ("solve", "most"),
    [
        # Checks of the convergence, two to four, and one of the residuals.
        (ncut, 5),
        # Once more between two cuts.
        (partial(cut_repeatedly, grid=(10, 10), n=2), 5 + 1 + 5),
    ],
    ids=["one", "cuts"],
)
def test_few_transfers_wait_for_the_gpu(gpu, solve, most):
    content = np.load(GOLDEN)
    images = [content[f"features_{image}_p16"].reshape(30, 30, -1)[::3, ::3] for image in range(3)]
    features = on_device(torch.from_numpy(np.stack(images).reshape(3, 100, -1)), GPU)
    solve(features)  # keeps random vectors on the device
    gpu.waits.clear()
    assert solve(features).status.tolist() == ["ok"] * 3
    assert gpu.waits.keys() == {"to_cpu"}
    assert gpu.waits["to_cpu"] <= most


def test_an_interrupted_extraction_ends_its_thread(images, weights, tmp_path, gpu, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    folder, listing = images
    monkeypatch.setattr(extraction, "_enter_pairs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_shard(
            listing,
            folder,
            tiny(weights, "cuda"),
            tmp_path / "0.zarr.zip",
            need=Eigenvectors(),
            batch_size=1,
        )
    assert not threads()
    assert not list(tmp_path.iterdir())


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_half_precision_is_chosen_where_it_is_faster(weights, monkeypatch):
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    on_cpu = tiny(weights, "cpu", "auto")
    assert on_cpu.precision == "float32"
    with pretended_gpu(monkeypatch, capability=(6, 1)):
        assert tiny(weights, "cuda", "auto").precision == "float32"
    with pretended_gpu(monkeypatch, capability=(7, 0)) as gpu:
        backbone = tiny(weights, "cuda", "auto")
        assert backbone.precision == "float16"
        images_there = on_device(images, GPU)
        gpu.waits.clear()
        features = backbone.features(images_there)
        assert not gpu.waits
        assert features.dtype == torch.float32
        error = features.cpu() - on_cpu.features(images)
    relative = float(error.norm() / on_cpu.features(images).norm())
    assert 1e-5 < relative < 2e-3


def test_convolutions_are_not_rounded_to_tf32():
    cudnn = torch.backends.cudnn
    assert cudnn.allow_tf32
    with without_tf32():
        assert not cudnn.allow_tf32
        assert cudnn.enabled
    assert cudnn.allow_tf32


def test_a_full_memory_names_the_batch_size(images, weights, tmp_path, gpu, monkeypatch):
    folder, listing = images
    backbone = tiny(weights, "cuda")

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. More")

    monkeypatch.setattr(backbone.features, "forward", full)
    with pytest.raises(CuvlerError, match="CUDA out of memory; use less than 3 images") as caught:
        extract_shard(
            listing, folder, backbone, tmp_path / "0.zarr.zip", need=Eigenvectors(), batch_size=3
        )
    assert caught.value.parameter == "batch_size"
    assert not list(tmp_path.iterdir())


def test_streams_wait_for_tensors_of_others(gpu):
    first, second = Stream(GPU), Stream(GPU)
    with first.active():
        tensor = torch.ones(3, device="cuda") + 1
        handed = first.hand_over(tensor)
    with second.active():
        with pytest.raises(WrongOnGpuError, match="did not wait"):
            tensor + 1
        assert (handed.take() + 1).tolist() == [3, 3, 3]
        with first.active():
            later = tensor * 2
        with pytest.raises(WrongOnGpuError, match="did not wait"):
            later + 1
