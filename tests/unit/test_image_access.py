"""A COCO json may be anyone's: what it names outside the image root is not opened."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from cuvler.cli import cuvler
from cuvler.detector.training_annotations import read_annotations
from cuvler.errors import DataError
from cuvler.image_access import ALLOW_OUTSIDE_VARIABLE, MAX_PIXELS_VARIABLE, image_path
from cuvler.listing import ListedImage, list_images, read_listing
from cuvler.predictions import read_images
from cuvler.report.cards import make_card

SECRET = "../secret/private.jpg"
OUTSIDE = [SECRET, "a/../../b.jpg", "/etc/passwd", "..", "a/../b.jpg"]
INSIDE = ["a.jpg", "a/b.jpg", "..a.jpg", "a/...jpg", "~/a.jpg", "C:\\a.jpg"]


@pytest.fixture
def data(tmp_path):
    """An image root, a secret next to it, and a json that names both."""
    for name in ("images/a.jpg", "secret/private.jpg"):
        path = tmp_path / name
        path.parent.mkdir()
        Image.linear_gradient("L").save(path)
    names = ["a.jpg", SECRET]
    images = [
        {"id": number, "file_name": name, "width": 256, "height": 256}
        for number, name in enumerate(names, start=1)
    ]
    box = {"category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1, 9, 9]]}
    annotations = [{"id": image["id"], "image_id": image["id"], **box} for image in images]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out(name, monkeypatch):
    with pytest.raises(DataError, match=r"x\.json: file_name .* leads out") as caught:
        image_path("images", name, source="x.json")
    assert caught.value.parameter == "allow_outside"
    monkeypatch.setenv(ALLOW_OUTSIDE_VARIABLE, "1")
    assert image_path("images", name) == Path("images") / name


@pytest.mark.parametrize("name", INSIDE)
def test_names_that_stay(name):
    assert image_path("images", name) == Path("images") / name


@pytest.mark.parametrize(
    "read",
    [
        lambda data: list_images(data / "images", ground_truth=data / "truth.json"),
        lambda data: read_images(data / "truth.json"),
        lambda data: read_annotations(data / "truth.json", data / "images"),
    ],
    ids=["images", "predictions", "detector"],
)
def test_every_reader_of_jsons_refuses(data, read, monkeypatch):
    with pytest.raises(DataError, match=r"truth\.json: file_name '\.\./secret/private\.jpg'"):
        read(data)
    monkeypatch.setenv(ALLOW_OUTSIDE_VARIABLE, "1")
    read(data)


def test_a_page_shows_no_image_from_outside(data):
    card = make_card(data / "images", ListedImage(1, SECRET), [], {})
    assert card.panels == []
    assert "leads out of the image root" in card.error


def test_the_command_has_an_option_for_it(data):
    arguments = ["images", "--dataset", "x", "--image-root", data / "images"]
    arguments += ["--ground-truth", data / "truth.json", "--output", data / "x.parquet"]
    words = [str(word) for word in arguments]
    assert isinstance(CliRunner().invoke(cuvler, words).exception, DataError)
    result = CliRunner().invoke(cuvler, [*words, "--allow-outside"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert SECRET in set(read_listing(data / "x.parquet")["file_name"])
    assert ALLOW_OUTSIDE_VARIABLE not in os.environ


def test_the_commands_limit_of_pixels_is_the_workers_too(data):
    arguments = ["discover", data / "images", "--backbone", "pixels_p16", "--max-pixels", "65535"]
    result = CliRunner().invoke(cuvler, [*map(str, arguments), "--output", str(data / "found")])
    assert "of 1 images 1 could not be opened" in str(result.exception)
    assert MAX_PIXELS_VARIABLE not in os.environ
    listing = ["images", "--dataset", "x", "--image-root", data / "images"]
    listing += ["--output", data / "x.parquet"]
    masks = ["pseudo-masks", "--listing", data / "x.parquet", "--image-root", data / "images"]
    masks += ["--shard", "0", "--output", data / "0.json", "--max-pixels", "65535"]
    vectors = ["eigenvectors", *masks[1:7], "--output", data / "0.zarr.zip"]
    vectors += ["--backbone", "pixels_p16"]
    masks += ["--eigenvectors", data / "0.zarr.zip"]
    for words in (listing, vectors, masks):
        result = CliRunner().invoke(cuvler, list(map(str, words)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
    [image] = json.loads((data / "0.json").read_text())["images"]
    assert image["status"] == "unreadable"
    assert "max_pixels" in image["reason"]
