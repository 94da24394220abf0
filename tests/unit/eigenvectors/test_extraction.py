import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from cuvler.cli import cuvler
from cuvler.eigenvectors import extraction, ncut, normalized_cut
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.extraction import extract_shard
from cuvler.eigenvectors.features import load_backbone
from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.eigenvectors.store import open_eigenvectors
from cuvler.eigenvectors.vit import create_vit
from cuvler.errors import ConfigError, DataError
from cuvler.images import open_image
from cuvler.loading import LoaderDiedError

TINY = {"tiny": {"timm": "test_vit", "feature": "key", "size": 96}}
GOOD = ["a.jpg", "b.png", "grey.png", "one_pixel.png", "wide.jpg"]
BAD = {"broken.jpg": "unreadable", "empty.jpg": "unreadable", "gone.jpg": "missing"}


def scene(seed, size):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 60, (size[1], size[0], 3), np.uint8))
    ImageDraw.Draw(image).rectangle((20, 20, 60, 50), fill=tuple(rng.integers(90, 256, 3)))
    return image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    scene(0, (120, 90)).save(folder / "a.jpg")
    scene(1, (90, 120)).save(folder / "b.png")
    scene(2, (100, 100)).convert("L").save(folder / "grey.png")
    Image.new("RGB", (1, 1), (9, 9, 9)).save(folder / "one_pixel.png")
    scene(3, (300, 64)).save(folder / "wide.jpg")
    content = (folder / "a.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(content[: len(content) // 3])
    (folder / "empty.jpg").touch()
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(create_vit(backbone_spec("tiny", TINY)).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def tiny(weights):
    return load_backbone(backbone_spec("tiny", TINY), weights=weights)


def listing():
    names = sorted([*GOOD, *BAD])
    return pd.DataFrame({"image_id": range(100, 100 + len(names)), "file_name": names, "shard": 0})


def test_every_image_is_accounted_for(root, tiny, tmp_path):
    path = tmp_path / "0.zarr.zip"
    graph = {"tau": 0.2, "eps": 1e-4}
    extract_shard(listing(), root, tiny, path, need=Eigenvectors(2), **graph, batch_size=3)
    image_ids = listing()["image_id"].to_numpy()
    with open_eigenvectors(path, image_ids=image_ids, settings={"tau": 0.2, "k": 2}) as store:
        assert store.attributes["weights_sha256"] == tiny.weights_sha256
        assert store.attributes["eps"] == 1e-4
        assert store.grid == (6, 6)
        for index, name in enumerate(listing()["file_name"]):
            assert store.status[index] == BAD.get(name, "ok")
            assert np.isfinite(store.vector(index)).all() == (name in GOOD)
            if name in GOOD:
                prepared = tiny.prepare(open_image(root / name))[None]
                expected = ncut(tiny.features(prepared), tau=0.2, eps=1e-4, k=2).vectors[0]
                cosines = np.abs(
                    (expected.numpy() * store.vector(index).reshape(2, -1)).sum(axis=1)
                )
                # Of images without any gap between eigenvalues any vector will do.
                if name != "one_pixel.png":
                    assert cosines.min() >= 0.9999


def test_bytes_do_not_depend_on_workers_or_interruptions(root, tiny, tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.zarr.zip" for name in ("alone", "workers", "resumed")]
    common = {"need": Eigenvectors(), "batch_size": 3}
    extract_shard(listing(), root, tiny, paths[0], **common)
    extract_shard(listing(), root, tiny, paths[1], **common, workers=2)

    def killed(*_arguments, **_settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(extraction, "_enter_pairs", killed)
        with pytest.raises(KeyboardInterrupt):
            extract_shard(listing(), root, tiny, paths[2], **common)
    assert not paths[2].exists()
    assert len(list(tmp_path.iterdir())) == 2
    extract_shard(listing(), root, tiny, paths[2], **common)
    first, *others = (path.read_bytes() for path in paths)
    assert others == [first, first]


def test_batch_size_does_not_matter(root, tiny, tmp_path):
    shards = [
        extract_shard(
            listing(),
            root,
            tiny,
            tmp_path / f"{size}.zarr.zip",
            need=Eigenvectors(),
            batch_size=size,
        )
        for size in (1, 8)
    ]
    for index, name in enumerate(listing()["file_name"]):
        if name in GOOD and name != "one_pixel.png":
            one, other = (shard.eigenvectors[index].ravel() for shard in shards)
            assert one @ other >= 0.9999


def test_a_failed_or_dense_solution_is_recorded(root, tiny, tmp_path, monkeypatch):
    def solve(features, **settings):
        pairs = ncut(features, **settings)
        pairs.status[:2] = ["failed", "dense"]
        pairs.vectors[0] = torch.nan
        return pairs

    monkeypatch.setattr(normalized_cut, "ncut", solve)
    rows = listing()[lambda table: table["file_name"].isin(GOOD)]
    extract_shard(rows, root, tiny, tmp_path / "0.zarr.zip", need=Eigenvectors(), batch_size=8)
    store = open_eigenvectors(tmp_path / "0.zarr.zip")
    assert store.status == ("eigensolver_failed", "ok", "ok", "ok", "ok")
    assert store.dense.tolist() == [False, True, False, False, False]


def killed_at(counter, deaths):
    """Opens images, but kills the process at the fourth image, a number of times."""
    opened = extraction.open_resized

    def open_or_die(path, *arguments):
        if path.name == GOOD[-1] and len(counter.read_bytes()) < deaths:
            with counter.open("ab") as stream:
                stream.write(b"x")
            os.kill(os.getpid(), signal.SIGKILL)
        return opened(path, *arguments)

    return open_or_die


# torch may raise its error while it deletes the loader, where it cannot be caught.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("deaths", [1, 2])
def test_after_the_death_of_a_worker_one_opens_the_rest(
    root, tiny, tmp_path, monkeypatch, caplog, deaths
):
    common = {"need": Eigenvectors(), "batch_size": 2}
    extract_shard(listing(), root, tiny, tmp_path / "whole.zarr.zip", **common)
    (tmp_path / "deaths").touch()
    # The workers are forked, and so have the function too.
    monkeypatch.setattr(extraction, "open_resized", killed_at(tmp_path / "deaths", deaths))
    output = tmp_path / "0.zarr.zip"
    if deaths == 1:
        extract_shard(listing(), root, tiny, output, **common, workers=2)
        assert output.read_bytes() == (tmp_path / "whole.zarr.zip").read_bytes()
        assert "one process opens the others" in caplog.text
    else:
        with pytest.raises(LoaderDiedError, match="want of memory") as caught:
            extract_shard(listing(), root, tiny, output, **common, workers=2)
        assert caught.value.parameter == "workers"
        assert not output.exists()
    # The end of another process is no error.
    subprocess.run([sys.executable, "-c", ""], check=True)


def test_an_error_of_the_loading_itself_is_raised(root, tiny, tmp_path, monkeypatch):
    def wrong(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(extraction, "open_resized", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        extract_shard(
            listing(), root, tiny, tmp_path / "0.zarr.zip", need=Eigenvectors(), workers=2
        )


def test_an_empty_shard(root, tiny, tmp_path):
    extract_shard(listing()[:0], root, tiny, tmp_path / "0.zarr.zip", need=Eigenvectors())
    assert len(open_eigenvectors(tmp_path / "0.zarr.zip")) == 0


def test_weights_and_backbones_must_go_together(weights):
    with pytest.raises(ConfigError, match=r"dino_s16.*cuvler weights"):
        load_backbone(backbone_spec("dino_s16"))
    with pytest.raises(ConfigError, match="takes no weights"):
        load_backbone(backbone_spec("pixels_p8"), weights=weights)
    with pytest.raises(DataError, match="does not fit vit_small_patch16_224"):
        load_backbone(backbone_spec("dino_s16"), weights=weights)


@pytest.fixture
def workplace(root, weights, tmp_path):
    """Arguments of the command, and where it writes."""
    listing().to_parquet(tmp_path / "listing.parquet")
    shutil.copy(weights, tmp_path / "w.safetensors")
    common = ["--listing", tmp_path / "listing.parquet", "--image-root", root, "--device", "cpu"]
    return tmp_path, ["eigenvectors", *map(str, common)]


def invoke(arguments, *more):
    return CliRunner().invoke(cuvler, [*arguments, *map(str, more)], catch_exceptions=False)


def test_the_command_extracts_with_a_backbone_of_the_users_own(workplace):
    folder, arguments = workplace
    own = ["--definitions", json.dumps(TINY), "--weights", folder / "w.safetensors"]
    output = folder / "out" / "0.zarr.zip"
    result = invoke(
        arguments,
        "--backbone",
        "tiny",
        *own,
        "--shard",
        0,
        "--num-eigenvectors",
        2,
        "--output",
        output,
    )
    assert result.exit_code == 0
    with open_eigenvectors(output, settings={"backbone": "tiny", "k": 2, "timm": "test_vit"}) as s:
        assert s.status.count("ok") == len(GOOD)


def test_the_command_extracts_with_pixels(workplace):
    folder, arguments = workplace
    output = folder / "0.zarr.zip"
    result = invoke(
        arguments, "--backbone", "pixels_p16", "--shard", 0, "--threads", 2, "--output", output
    )
    assert result.exit_code == 0
    store = open_eigenvectors(output, settings={"weights_sha256": None, "feature": "pixels"})
    assert store.grid == (30, 30)


def test_the_command_names_an_unknown_backbone(workplace):
    folder, arguments = workplace
    with pytest.raises(ConfigError, match="'pixel_p16' is not known"):
        invoke(arguments, "--backbone", "pixel_p16", "--shard", 0, "--output", folder / "x")


@pytest.mark.parametrize("definitions", ["[]", "{", '{"tiny": 1}'])
def test_the_command_refuses_definitions_that_define_nothing(workplace, definitions):
    folder, arguments = workplace
    own = ["--backbone", "tiny", "--definitions", definitions]
    with pytest.raises(ConfigError, match="defin"):
        invoke(arguments, *own, "--shard", 0, "--output", folder / "x")
