"""Every stage takes images upright: a photo means the same however the camera was held."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cuvler
from cuvler import masks
from cuvler.detector.data import load_sample
from cuvler.detector.records import Instance
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.extraction import NcutSettings, extract_shard
from cuvler.eigenvectors.features import load_backbone
from cuvler.eigenvectors.store import open_eigenvectors
from cuvler.predictions import _Images
from cuvler.pseudo_masks.methods import VoteCut
from cuvler.pseudo_masks.voting import process_shard
from cuvler.report.gallery import make_card

# Exif's orientation -> how a camera that was held so stores the upright picture.
STORED = {
    1: lambda image: image,
    3: lambda image: image.rotate(180),
    6: lambda image: image.rotate(90, expand=True),
    8: lambda image: image.rotate(270, expand=True),
}
LISTING = pd.DataFrame({"image_id": [1], "file_name": ["photo.png"]})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One photo, wider than high and with one bright thing in a corner, held in four ways."""
    pixels = np.random.default_rng(0).integers(0, 40, (96, 144, 3), dtype=np.uint8)
    pixels[20:60, 80:130] += np.array([200, 120, 0], dtype=np.uint8)
    found = {}
    for orientation, store in STORED.items():
        found[orientation] = tmp_path_factory.mktemp(f"held_{orientation}_")
        exif = Image.Exif()
        exif[0x0112] = orientation
        store(Image.fromarray(pixels)).save(found[orientation] / "photo.png", exif=exif)
    return found


@pytest.fixture(scope="module")
def eigenvectors(folders):
    backbone = load_backbone(backbone_spec("pixels_p16"))
    for folder in folders.values():
        extract_shard(LISTING, folder, backbone, folder / "0.zarr.zip", settings=NcutSettings())
    return {orientation: folder / "0.zarr.zip" for orientation, folder in folders.items()}


def record(folder):
    mask = np.zeros((96, 144), dtype=bool)
    mask[20:60, 80:130] = True
    return {
        "file_name": str(folder / "photo.png"),
        "image_id": 1,
        "height": 96,
        "width": 144,
        "instances": [Instance(masks.encode(mask), 0, 1.0, None)],
    }


def test_eigenvectors_are_the_same(eigenvectors):
    vectors = [open_eigenvectors(path).vector(0) for path in eigenvectors.values()]
    for vector in vectors[1:]:
        np.testing.assert_array_equal(vector, vectors[0])


def test_pseudo_masks_are_the_same_and_of_the_upright_size(folders, eigenvectors):
    records = [
        next(process_shard(LISTING, folders[held], [eigenvectors[held]], VoteCut()))
        for held in STORED
    ]
    assert all(record == records[0] for record in records)
    assert (records[0].image["width"], records[0].image["height"]) == (144, 96)
    best = records[0].annotations[0]
    assert best["segmentation"]["size"] == [96, 144]
    x, y, width, height = best["bbox"]
    assert (x + width / 2, y + height / 2) == pytest.approx((105, 40), abs=10)


def test_training_sees_masks_over_the_same_pixels(folders):
    samples = [load_sample(record(folder)) for folder in folders.values()]
    for sample in samples:
        np.testing.assert_array_equal(sample.image, samples[0].image)
        assert sample.image[sample.masks[0]].min(axis=0)[0] >= 200
        assert sample.image[~sample.masks[0]].max() < 40


def test_predictions_see_the_same_image(folders):
    inputs = [_Images([(1, "photo.png")], folder, (48, 100))[0] for folder in folders.values()]
    for item in inputs:
        assert (item.content["height"], item.content["width"]) == (96, 144)
        assert item.content["image"].equal(inputs[0].content["image"])


def test_the_report_shows_the_same_picture(folders):
    cards = [make_card(folder, 1, "photo.png", [], {}) for folder in folders.values()]
    assert all(card == cards[0] for card in cards)
    assert (cards[0].panels[0].width, cards[0].panels[0].height) == (288, 192)


def test_nothing_else_opens_images():
    package = Path(cuvler.__file__).parent
    opening = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("open", "imread", "read_image", "decode_image")
        and ast.unparse(node.value) in ("Image", "PIL.Image", "cv2", "utils", "torchvision.io")
    ]
    # The second looks at headers alone, for sizes of the upright image.
    assert set(opening) <= {"images.py", "ground_truth/records.py"}
