import importlib
import json
import os
import re
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from cuvler.cli import cuvler
from cuvler.eigenvectors.store import STATUSES, ShardEigenvectors, write_eigenvectors
from cuvler.errors import CuvlerError, DataError
from cuvler.listing import listed_images, read_listing, write_listing
from cuvler.masks import decode
from cuvler.pseudo_masks.image_record import ImageRecord
from cuvler.pseudo_masks.shard import info_of, process_shard, write_shard
from cuvler.pseudo_masks.unfinished import find_unfinished, unfinished_path
from cuvler.pseudo_masks.vote_cut import VoteCut

NAMES = (
    *("disc.png", "flat.png", "gone.png", "broken.png", "unsolved.png", "lost.png"),
    "black.png",
)
GRIDS = {"a": 30, "b": 34}


def disc_map(size):
    y, x = np.mgrid[:size, :size] / size
    return np.exp(-((y - 0.5) ** 2 + (x - 0.4) ** 2) / 0.03).astype(np.float32)


def write_maps(path, backbone, image_ids, statuses):
    size = GRIDS[backbone]
    shard = ShardEigenvectors.empty(np.array(image_ids, dtype=np.int64), 1, (size, size))
    shard.status[:] = [STATUSES.index(status) for status in statuses]
    for index, status in enumerate(statuses):
        if status == "ok":
            shard.eigenvectors[index] = disc_map(size)
    shard.eigenvectors[1] = 0.5  # Of flat.png: a constant map.
    settings = {"backbone": backbone, "problem": "standard", "tau": 0.15, "eps": 1e-5}
    write_eigenvectors(path, shard, settings | {"weights_sha256": f"digest of {backbone}"})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A listing of one shard, images of every fate, and the files of two backbones."""
    folder = tmp_path_factory.mktemp("dataset")
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("disc.png", "flat.png", "unsolved.png", "lost.png"):
        pixels = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(images / name)
    (images / "broken.png").write_bytes(b"not an image")
    Image.new("RGB", (64, 48)).save(images / "black.png")
    ids = [3, 7, 8, 20, 21, 30, 31]
    listing = pd.DataFrame({"image_id": ids, "file_name": NAMES})
    listing["shard"] = np.zeros(len(ids), dtype=np.int32)
    write_listing(listing, folder / "listing.parquet")
    fine = ["ok"] * 7
    write_maps(folder / "a.zarr.zip", "a", ids, fine)
    failed = ["eigensolver_failed", "unreadable", "eigensolver_failed"]
    write_maps(folder / "b.zarr.zip", "b", ids, [*fine[:4], *failed])
    return folder


def run(dataset, output, *options):
    arguments = ["pseudo-masks", "--listing", dataset / "listing.parquet", "--shard", 0]
    for backbone in GRIDS:
        arguments += ["--eigenvectors", dataset / f"{backbone}.zarr.zip"]
    arguments += ["--image-root", dataset / "images", "--output", output, *options]
    return CliRunner().invoke(cuvler, list(map(str, arguments)))


@pytest.fixture(scope="module")
def shard(dataset):
    result = run(dataset, dataset / "0.json")
    assert result.exit_code == 0, result.output
    return json.loads((dataset / "0.json").read_text())


def test_every_image_is_accounted_for(shard):
    assert [(image["id"], image["file_name"], image["status"]) for image in shard["images"]] == [
        (3, "disc.png", "ok"),
        (7, "flat.png", "no_mask"),
        (8, "gone.png", "missing"),
        (20, "broken.png", "unreadable"),
        (21, "unsolved.png", "eigensolver_failed"),
        (30, "lost.png", "unreadable"),
        (31, "black.png", "uniform"),
    ]
    sizes = [(image["width"], image["height"]) for image in shard["images"]]
    known, unknown = (64, 48), (None, None)
    assert sizes == [known, known, unknown, unknown, known, known, known]


def test_reasons_name_no_folder(shard, dataset):
    reasons = {i["file_name"]: i["reason"] for i in shard["images"] if "reason" in i}
    assert set(reasons) == {"gone.png", "broken.png", "unsolved.png", "lost.png"}
    assert reasons["gone.png"] == "no such file"
    assert "cannot identify image file" in reasons["broken.png"]
    assert "eigenvectors" in reasons["lost.png"]
    assert not any(str(dataset) in reason for reason in reasons.values())


def test_annotations_describe_their_masks(shard):
    assert shard["annotations"]
    scores = [annotation["score"] for annotation in shard["annotations"]]
    assert scores == sorted(scores, reverse=True)
    for annotation in shard["annotations"]:
        mask = decode(annotation["segmentation"])
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        assert annotation["image_id"] == 3
        assert mask.shape == (48, 64)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [
            left, top, columns.max() - left + 1, rows.max() - top + 1
        ]  # fmt: skip
        assert isinstance(annotation["crf_success"], bool)
        assert 1 <= annotation["cluster_size"] <= 4


def test_info_holds_what_decides_the_masks(shard):
    assert shard["info"] == {
        "method": "votecut",
        "backbones": ["a", "b"],
        "weights_sha256": ["digest of a", "digest of b"],
        "tau": 0.15,
        "eps": 1e-5,
        "ks": [2, 3],
        "tau_m": 0.2,
        "crf": "fast",
    }


def test_info_holds_each_backbones_own_settings():
    table = {"feature": "key", "size": 480, "timm": "vit_small_patch16_224.dino", "layer": -1}
    first = {"backbone": "dino_s16", "tau": 0.15, "eps": 1e-5, **table}
    second = {"backbone": "dinov3_s16", "tau": 0.6, "eps": 1e-5, "size": 512}
    info = info_of([first, second], VoteCut())
    assert (info["tau"], info["eps"]) == ([0.15, 0.6], 1e-5)
    assert info["definitions"] == {"dinov3_s16": {"size": 512}}
    assert "definitions" not in info_of([first], VoteCut())


def test_the_number_of_workers_changes_no_byte(shard, dataset):
    assert run(dataset, dataset / "again.json", "--workers", 2).exit_code == 0
    assert (dataset / "again.json").read_bytes() == (dataset / "0.json").read_bytes()


def test_options_reach_the_vote(dataset):
    result = run(dataset, dataset / "k.json", "--ks", 2, "--tau-m", 0.5, "--crf", "pydensecrf")
    assert result.exit_code == 0, result.output
    content = json.loads((dataset / "k.json").read_text())
    assert (content["info"]["ks"], content["info"]["tau_m"]) == ([2], 0.5)
    assert max(annotation["cluster_size"] for annotation in content["annotations"]) <= 2


def test_fewer_eigenvectors_than_vote_are_refused(dataset, tmp_path):
    result = run(dataset, tmp_path / "out.json", "--num-eigenvectors", 2)
    assert isinstance(result.exception, DataError)
    assert re.search(r"a\.zarr\.zip: .*k=1.* 2 are wanted", str(result.exception))
    assert not list(tmp_path.iterdir())


def test_eigenvectors_of_other_images_are_refused(dataset):
    listing = read_listing(dataset / "listing.parquet").iloc[:3]
    stores = [dataset / "a.zarr.zip"]
    method = VoteCut(backbones=("a",))
    with pytest.raises(DataError, match=r"a\.zarr\.zip: .*listing"):
        list(process_shard(listing, dataset / "images", stores, method))


def test_missing_inputs_are_named(dataset, tmp_path):
    result = run(dataset, tmp_path / "out.json", "--eigenvectors", tmp_path / "c.zarr.zip")
    assert isinstance(result.exception, DataError)
    assert "c.zarr.zip" in str(result.exception)
    result = run(dataset, tmp_path / "out.json", "--image-root", tmp_path / "nowhere")
    assert "nowhere: no such folder" in str(result.exception)
    assert not list(tmp_path.iterdir())


DEADLY = """
import os
from pathlib import Path

from cuvler.pseudo_masks.vote_cut import VoteCut

class Deadly(VoteCut):
    # Dies on one image, each time of another signal, and then no more.
    folder: str
    deaths: tuple[int, ...] = ()

    def masks(self, image, vectors):
        died = len(list(Path(self.folder).iterdir()))
        if image.getpixel((0, 0)) == (1, 2, 3) and died < len(self.deaths):
            Path(self.folder, str(died)).touch()
            os.kill(os.getpid(), self.deaths[died])
        return super().masks(image, vectors)
"""
KILL, ABORT = signal.SIGKILL, signal.SIGABRT


@pytest.fixture
def deadly(tmp_path, monkeypatch, dataset):
    """What processes the dataset and dies on the image disc.png: signals -> (records, info)."""
    (tmp_path / "deadly_method.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("deadly_method")
    folder = tmp_path / "images"
    shutil.copytree(dataset / "images", folder)
    marked = np.asarray(Image.open(folder / "disc.png")).copy()
    marked[0, 0] = 1, 2, 3
    Image.fromarray(marked).save(folder / "disc.png")
    listing = read_listing(dataset / "listing.parquet")
    stores = [dataset / "a.zarr.zip", dataset / "b.zarr.zip"]
    info = {"method": "votecut"}

    def run(path, *deaths, workers=2):
        """As the command does: take up what an earlier run left."""
        deaths_folder = tmp_path / "deaths"
        deaths_folder.mkdir(exist_ok=True)
        method = module.Deadly(backbones=tuple(GRIDS), folder=str(deaths_folder), deaths=deaths)
        earlier = find_unfinished(path, info, listing, stores)
        records = process_shard(
            listing, folder, stores, method, workers=workers, unfinished=earlier
        )
        return write_shard(path, info, records, last_try=earlier is not None)

    return run


@pytest.mark.slow
def test_an_image_that_runs_out_of_memory_is_tried_again_alone_by_the_next_run(deadly, tmp_path):
    path, whole = tmp_path / "out/0.json", tmp_path / "whole/0.json"
    deadly(whole)
    with pytest.raises(CuvlerError, match=r"0\.json: not written.* 1 of 7 images: disc\.png\. "):
        deadly(path, KILL, KILL)
    # A file that exists is whole; what was done waits for the next run.
    assert [one.name for one in path.parent.iterdir()] == [".0.json.unfinished"]
    before = json.loads((path.parent / ".0.json.unfinished").read_text())
    assert [image["status"] for image in before["images"]][:2] == ["crashed", "no_mask"]
    deadly(path, KILL, KILL)
    assert [one.name for one in path.parent.iterdir()] == ["0.json"]
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_an_image_that_crashes_again_is_accounted_for(deadly, tmp_path):
    path = tmp_path / "out/0.json"
    with pytest.raises(CuvlerError, match="not written"):
        deadly(path, KILL, KILL, KILL)
    assert deadly(path, KILL, KILL, KILL)["crashed"] == 1
    assert [one.name for one in path.parent.iterdir()] == ["0.json"]
    images = json.loads(path.read_text())["images"]
    assert [image["id"] for image in images] == [3, 7, 8, 20, 21, 30, 31]
    assert images[0]["status"] == "crashed"
    assert "out of memory" in images[0]["reason"]


def test_other_deaths_are_no_reason_to_run_again(deadly, tmp_path):
    path = tmp_path / "out/0.json"
    assert deadly(path, ABORT, ABORT)["crashed"] == 1
    [image] = [i for i in json.loads(path.read_text())["images"] if i["status"] == "crashed"]
    assert "memory" not in image["reason"]


@pytest.mark.slow
def test_the_second_chance_of_the_same_run(deadly, tmp_path):
    assert deadly(tmp_path / "out/0.json", KILL)["ok"] == 1


@pytest.mark.parametrize("change", ["info", "listing", "inputs", "damage"])
def test_what_an_earlier_run_left_is_used_only_if_it_fits(dataset, tmp_path, change):
    path = tmp_path / "out/0.json"
    listing = read_listing(dataset / "listing.parquet")
    given = {"info": {"method": "votecut", "ks": (2, 3)}, "listing": listing, "inputs": []}
    records = (
        ImageRecord(
            {"id": image.image_id, "file_name": image.file_name, "status": "crashed"}, [], True
        )
        for image in listed_images(listing)
    )
    with pytest.raises(CuvlerError, match="not written"):
        write_shard(path, given["info"], records)
    assert find_unfinished(path, **given) == unfinished_path(path)
    if change == "damage":
        content = unfinished_path(path).read_bytes()
        unfinished_path(path).write_bytes(content[: len(content) // 2])
    else:
        (tmp_path / "newer").touch()
        time = unfinished_path(path).stat().st_mtime + 1
        os.utime(tmp_path / "newer", (time, time))
        changed = {"info": {"method": "x"}, "listing": listing[1:], "inputs": [tmp_path / "newer"]}
        given[change] = changed[change]
    assert find_unfinished(path, **given) is None


def test_a_stopped_run_leaves_nothing(tmp_path):
    def records():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "0.json", {}, records())
    assert not list(tmp_path.iterdir())


def test_an_empty_shard(tmp_path):
    assert write_shard(tmp_path / "0.json", {"method": "votecut"}, []).total() == 0
    content = json.loads((tmp_path / "0.json").read_text())
    assert content == {"info": {"method": "votecut"}, "images": [], "annotations": []}
