"""Runs of the workflow on a few scenes."""

import json
import os
import re
import shutil
import signal
import time

import pytest
from PIL import Image

from cuvler.listing import read_listing

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ANNOTATIONS = "results/demo/annotations/demo_train/votecut.json"


def test_from_images_to_report_and_again(workplace, tiny):
    tiny["recipe"] = ["cuvler", "cutler"]
    settings = workplace.configure(**tiny)
    workplace.snakemake("all", *settings)
    results = workplace.folder / "results/demo"

    metrics = json.loads((results / "demo_val_metrics.json").read_text())
    detectors = [f"{recipe}_round{n}" for recipe in ("cuvler", "cutler") for n in (0, 1)]
    assert list(metrics) == ["votecut", "maskcut", *detectors]
    for entry in metrics.values():
        for iou_type in ("bbox", "segm"):
            assert 0 <= entry[iou_type]["AP50"] <= 100
    for method in ("votecut", "maskcut"):
        merged = json.loads((results / f"annotations/demo_train/{method}.json").read_text())
        assert len(merged["images"]) == 9
        assert merged["annotations"]
        assert merged["info"]["method"] == method
    previous = merged["annotations"]
    learned = json.loads((results / "self_training/cutler_round1.json").read_text())
    assert 0 < learned["info"]["num_previous_kept"] <= len(previous)
    page = (results / "report.html").read_text()
    assert all(detector in page for detector in detectors)
    assert not list(results.glob("**/*.part"))

    assert "Nothing to be done" in workplace.snakemake("all", *settings)

    # Snakemake's own report includes the page.
    workplace.snakemake("--report", "own.html", *settings)
    assert "report.html" in (workplace.folder / "own.html").read_text(encoding="utf-8")

    # A run of one recipe only needs new tables and a new report.
    alone = workplace.snakemake("-n", "all", *workplace.configure(**tiny | {"recipe": "cuvler"}))
    assert re.search(r"^metrics +1$", alone, re.MULTILINE)
    assert not re.search(r"^(pseudo_masks|detector|predictions|evaluation) ", alone, re.MULTILINE)

    # A comment triggers nothing; a setting triggers only the stages that depend on it.
    workplace.configure(**tiny)
    with (workplace.folder / "own.yaml").open("a") as stream:
        stream.write("# a comment\n")
    assert "Nothing to be done" in workplace.snakemake("-n", "all", *settings)
    tiny["pseudo_masks"]["votecut"]["tau_m"] = 0.3
    changed = workplace.configure(**tiny)
    plan = workplace.snakemake("-n", "all", *changed)
    assert re.search(r"^pseudo_masks +4$", plan, re.MULTILINE)
    assert not re.search(r"^(images|eigenvectors) ", plan, re.MULTILINE)


def test_a_dataset_in_another_folder_is_listed_again(workplace, tiny, scenes):
    listing = "results/demo/images/photos.parquet"
    tiny["datasets"]["photos"] = {"images": str(scenes / "val/images")}
    workplace.snakemake(listing, *workplace.configure(**tiny))
    assert "Nothing to be done" in workplace.snakemake("-n", listing, *workplace.configure(**tiny))
    tiny["datasets"]["photos"] = {"images": str(scenes / "train/images")}
    workplace.snakemake(listing, *workplace.configure(**tiny))
    assert len(read_listing(workplace.folder / listing)) == 9


def test_images_that_are_added_or_removed_are_noticed(workplace, scenes):
    photos = workplace.folder / "photos"
    shutil.copytree(scenes / "val/images", photos / "deep")
    first, second, _ = sorted((photos / "deep").iterdir())
    target = "results/demo/annotations/mine/votecut.json"
    settings = workplace.configure(
        datasets={"mine": "photos"},
        images={"shards": 2},
        pseudo_masks={"votecut": {"backbones": ["pixels_p16"]}},
    )

    def run():
        workplace.snakemake(target, *settings)
        assert "Nothing to be done" in workplace.snakemake(target, *settings)
        merged = json.loads((workplace.folder / target).read_text())
        return [image["file_name"] for image in merged["images"]]

    names = [f"deep/{path.name}" for path in sorted((photos / "deep").iterdir())]
    assert run() == names
    # Neither other files nor a new time of a folder matter, and their images are not listed.
    (photos / "deep/notes.txt").touch()
    os.utime(photos)
    assert run() == names
    (photos / "new").mkdir()
    shutil.copy(first, photos / "new/1.jpg")
    plan = workplace.snakemake("-n", target, *settings)
    assert re.search(r"^images +1$", plan, re.MULTILINE)
    assert re.search(r"^pseudo_masks +2$", plan, re.MULTILINE)
    assert run() == [*names, "new/1.jpg"]
    second.unlink()
    assert run() == [names[0], names[2], "new/1.jpg"]
    # The photos of before: the listing's first parameters are not mistaken for those of now.
    shutil.rmtree(photos / "new")
    shutil.copy(first, second)
    assert run() == names
    # Images that are out of reach for a while do not undo anything.
    photos.rename(workplace.folder / "elsewhere")
    assert "Nothing to be done" in workplace.snakemake(target, *settings)


def test_killed_and_run_again_gives_the_same_bytes(workplace, tiny, tmp_path):
    settings = workplace.configure(**tiny)
    workplace.snakemake(ANNOTATIONS, *settings)
    undisturbed = (workplace.folder / ANNOTATIONS).read_bytes()
    shutil.rmtree(workplace.folder / "results")

    run = workplace.start(ANNOTATIONS, *settings)
    shards = workplace.folder / "results/demo/pseudo_masks/demo_train/votecut"
    deadline = time.monotonic() + 300
    while not list(shards.glob("[0-9].json")):
        assert run.poll() is None, run.stdout.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    finished = {path: path.stat().st_mtime_ns for path in shards.glob("[0-9].json")}
    assert not (workplace.folder / ANNOTATIONS).exists()

    workplace.snakemake("--unlock", *settings)
    workplace.snakemake(ANNOTATIONS, *settings)
    assert (workplace.folder / ANNOTATIONS).read_bytes() == undisturbed
    # At most the shard that Snakemake had not yet recorded as finished is made again.
    again = [path for path, time_ns in finished.items() if path.stat().st_mtime_ns != time_ns]
    assert len(again) <= 1


def test_the_number_of_shards_does_not_change_the_bytes(workplace, tiny):
    results = []
    for shards in (1, 4):
        tiny["datasets"]["demo_train"]["shards"] = shards
        workplace.snakemake(ANNOTATIONS, *workplace.configure(**tiny))
        results.append((workplace.folder / ANNOTATIONS).read_bytes())
        shutil.rmtree(workplace.folder / "results")
    assert results[0] == results[1]


def test_own_photos_with_one_key(workplace, scenes):
    photos = workplace.folder / "my photos"
    (photos / "deep" / "er").mkdir(parents=True)
    images = sorted((scenes / "val/images").iterdir())
    shutil.copy(images[0], photos / "with space & 'quote'.JPG")
    Image.open(images[1]).save(photos / "deep" / "er" / "ünï.png")
    Image.open(images[2]).convert("L").save(photos / "deep" / "grey.webp")
    target = "results/demo/annotations/mine/votecut.json"
    settings = workplace.configure(
        datasets={"mine": "my photos"},
        images={"shards": 1},
        pseudo_masks={"votecut": {"backbones": ["pixels_p16"]}},
    )
    workplace.snakemake(target, *settings)
    merged = json.loads((workplace.folder / target).read_text())
    names = [image["file_name"] for image in merged["images"]]
    assert names == ["deep/er/ünï.png", "deep/grey.webp", "with space & 'quote'.JPG"]


def test_a_coco_json_with_one_key(workplace, scenes):
    photos = workplace.folder / "labelled"
    shutil.copytree(scenes / "val/images", photos / "pictures")
    first, second, _ = sorted(path.name for path in (photos / "pictures").iterdir())
    images = [
        {"id": 7, "file_name": f"pictures/{second}"},
        {"id": 40, "file_name": f"pictures/{first}"},
    ]
    (photos / "labels.json").write_text(json.dumps({"images": images, "annotations": []}))
    target = "results/demo/annotations/mine/votecut.json"
    settings = workplace.configure(
        datasets={"mine": "labelled/labels.json"},
        images={"shards": 2},
        pseudo_masks={"votecut": {"backbones": ["pixels_p16"]}},
    )
    workplace.snakemake(target, *settings)
    merged = json.loads((workplace.folder / target).read_text())
    names = {image["id"]: image["file_name"] for image in merged["images"]}
    assert names == {image["id"]: image["file_name"] for image in images}


def test_a_bad_image_is_counted_and_stops_the_merge_if_there_are_too_many(workplace, scenes):
    photos = workplace.folder / "photos"
    shutil.copytree(scenes / "val/images", photos)
    (photos / "broken.jpg").write_bytes(b"no image")
    target = "results/demo/annotations/mine/votecut.json"
    own = {
        "datasets": {"mine": "photos"},
        "images": {"shards": 2},
        "pseudo_masks": {"votecut": {"backbones": ["pixels_p16"]}},
    }
    output = workplace.snakemake(target, *workplace.configure(**own), status=1)
    assert "1 of 4 images could not be used" in output
    assert "broken.jpg (unreadable)" in output
    settings = workplace.configure(**own, annotations={"max_failed": 0.25})
    workplace.snakemake(target, *settings)
    merged = json.loads((workplace.folder / target).read_text())
    assert [image["file_name"] for image in merged["excluded"]] == ["broken.jpg"]
    assert len(merged["images"]) == 3
