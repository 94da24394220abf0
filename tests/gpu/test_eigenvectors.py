"""The eigenvector stage on a GPU agrees with the CPU."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from cuvler.eigenvectors import extraction, lanczos, ncut
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.cuts import cut_repeatedly
from cuvler.eigenvectors.extraction import default_batch_size, extract_shard
from cuvler.eigenvectors.features import Backbone, load_backbone
from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.eigenvectors.partitions import partitions
from cuvler.eigenvectors.vit import ViTFeatures, create_vit, prepare_image
from cuvler.images import open_image

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
GOLDEN = Path(__file__).parents[1] / "reference" / "ncut" / "ncut.npz"


@pytest.mark.parametrize("patches", ["p16", "p14", "p8"])
def test_golden_batches_agree_with_the_dense_solver(patches):
    golden = np.load(GOLDEN)
    batch = np.stack([golden[f"features_{image}_{patches}"] for image in range(3)])
    pairs = ncut(torch.from_numpy(batch).cuda(), k=3)
    assert pairs.vectors.is_cuda
    assert pairs.status.tolist() == ["ok"] * 3
    for image in range(3):
        expected = golden[f"eigenvectors_{image}_{patches}"].T
        cosines = np.abs((pairs.vectors[image].cpu().numpy() * expected).sum(axis=1))
        assert cosines.min() >= 0.9999


def test_hard_images_do_not_disturb_their_batch(monkeypatch):
    batch = torch.randn(4, 300, 32, generator=torch.Generator().manual_seed(0))
    batch[1] = 1  # all patches equal
    batch[2, 5, 5] = torch.nan
    pairs = ncut(batch.cuda(), k=2)
    assert pairs.status.tolist() == ["ok", "ok", "failed", "ok"]
    for image in (0, 3):
        expected = ncut(batch[image], k=2).vectors
        assert (pairs.vectors[image].cpu() * expected).sum(dim=1).min() >= 0.9999
    monkeypatch.setattr(lanczos, "MAX_PRODUCTS", 3)
    pairs = ncut(batch[[0, 3]].cuda())
    assert pairs.status.tolist() == ["dense", "dense"]
    assert (pairs.vectors[1].cpu() * ncut(batch[3]).vectors).sum().abs() >= 0.9999


def test_golden_images_have_the_same_cuts():
    content = np.load(GOLDEN.parents[1] / "maskcut" / "maskcut.npz")
    batch = torch.from_numpy(np.stack([f for f in content.values() if len(f) == 3600]))
    grid = (60, 60)
    on_gpu, on_cpu = (cut_repeatedly(part, grid).vectors for part in (batch.cuda(), batch))
    for ours, expected in zip(on_gpu.cpu().numpy(), on_cpu.numpy(), strict=True):
        cuts = partitions(ours.reshape(3, *grid))
        assert np.mean(cuts != partitions(expected.reshape(3, *grid))) <= 0.001


def test_mixed_precision_keeps_the_eigenvectors(images):
    folder, listing = images
    spec = backbone_spec("dino_s16")
    paths = [folder / name for name in listing["file_name"]]
    batch = torch.stack([prepare_image(open_image(path), spec.size) for path in paths]).cuda()
    vectors = []
    for precision in ("float32", "float16"):
        torch.manual_seed(0)
        model = ViTFeatures(create_vit(spec), spec.feature, precision).cuda()
        vectors.append(ncut(model(batch)).vectors)
    assert (vectors[0] * vectors[1]).sum(dim=-1).abs().min() >= 0.999


def test_batches_larger_than_the_memory_kept_for_graphs(monkeypatch):
    batch = torch.randn(5, 100, 16, generator=torch.Generator().manual_seed(0)).cuda()
    whole = ncut(batch)
    monkeypatch.setattr("cuvler.eigenvectors.normalized_cut._DEVICE_ENTRIES", 2 * 100**2)
    parts = ncut(batch)
    assert (whole.vectors * parts.vectors).sum(dim=-1).min() >= 0.9999


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(5):
        image = Image.fromarray(rng.integers(0, 60, (120, 160, 3), np.uint8))
        ImageDraw.Draw(image).rectangle((20, 20, 60, 50), fill=tuple(rng.integers(90, 256, 3)))
        image.save(tmp_path / f"{index}.png")
    names = [f"{index}.png" for index in range(5)]
    return tmp_path, pd.DataFrame({"image_id": range(5), "file_name": names})


def on(device, name):
    """A backbone with the same random weights on any device."""
    spec = backbone_spec(name)
    if spec.timm is None:
        return load_backbone(spec, device=device)
    torch.manual_seed(0)
    model = ViTFeatures(create_vit(spec), spec.feature).to(device)
    # Not a lambda, because it is pickled to spawned loader processes.
    return Backbone(spec, torch.device(device), partial(prepare_image, size=spec.size), model, None)


@pytest.mark.parametrize("name", ["dino_s16", "dinov2_s14", "pixels_p16"])
def test_extraction_gives_the_eigenvectors_of_the_cpu(images, tmp_path, name):
    folder, listing = images
    shards = [
        extract_shard(
            listing,
            folder,
            on(device, name),
            tmp_path / f"{device}.zarr.zip",
            need=Eigenvectors(),
            batch_size=2,
            workers=2,
        )
        for device in ("cpu", "cuda")
    ]
    assert not any(shard.status.any() for shard in shards)
    cosines = np.abs((shards[0].eigenvectors * shards[1].eigenvectors).sum(axis=(2, 3)))
    assert cosines.min() >= 0.9999


def test_batches_computed_ahead_give_the_same_bytes(images, tmp_path, monkeypatch):
    folder, listing = images
    backbone = on("cuda", "dino_s16")
    files = [tmp_path / f"{ahead}.zarr.zip" for ahead in (0, 2)]
    for ahead, path in zip((0, 2), files, strict=True):
        monkeypatch.setattr(extraction, "_AHEAD", ahead)
        extract_shard(listing, folder, backbone, path, need=Eigenvectors(), batch_size=1)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_few_operations_wait_for_the_gpu():
    """As counted by tests/unit/eigenvectors/test_on_gpu.py without one."""
    features = torch.randn(4, 900, 384, generator=torch.Generator().manual_seed(0)).cuda()
    ncut(features)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            ncut(features)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in found if "synchronizing" in str(warning.message)]
    # Random features converge slowly: more checks than those of images.
    assert 2 <= len(waits) <= 12


def test_default_batch_size_fits():
    backbone = on("cuda", "dino_s8")
    size = default_batch_size(backbone)
    features = backbone.features(torch.zeros(size, 3, 480, 480, dtype=torch.uint8, device="cuda"))
    assert features.shape == (size, 3600, 384)
