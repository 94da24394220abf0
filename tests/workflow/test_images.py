"""Datasets of one's own, from a folder or a COCO json to the merged annotations."""

import json
import os
import re
import shutil

import pytest
from PIL import Image

from cuvler.listing import read_listing

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


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
        images={"shards": 1},
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
    assert re.search(r"^pseudo_masks +1$", plan, re.MULTILINE)
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
