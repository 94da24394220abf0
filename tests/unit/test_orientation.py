"""Every stage takes images upright: a photo means the same however the camera was held.

Or as they are stored, where the size in their annotations says that those mean that.
"""

import ast
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cuvler
from cuvler import masks
from cuvler.detector.data import load_sample
from cuvler.detector.training_annotations import read_annotations
from cuvler.detector.training_file import Instance
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.extraction import extract_shard
from cuvler.eigenvectors.features import load_backbone
from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.eigenvectors.store import open_eigenvectors
from cuvler.errors import DataError
from cuvler.listing import ListedImage, list_images
from cuvler.predictions.parts import _Images
from cuvler.pseudo_masks.shard import process_shard
from cuvler.pseudo_masks.vote_cut import VoteCut
from cuvler.report.cards import make_card

# Exif's orientation -> how a camera that was held so stores the upright picture.
STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.rotate(180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.rotate(270, expand=True),
}
SIDEWAYS = (5, 6, 7, 8)
LISTING = pd.DataFrame({"image_id": [1], "file_name": ["photo.png"]})
# For annotations of the stored pixels of a photo that was held sideways.
STORED_SIZE = {"width": 96, "height": 144}
VOTECUT = VoteCut(backbones=("pixels_p16",))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One photo, wider than high and with one bright thing in a corner, held in all ways."""
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
        extract_shard(LISTING, folder, backbone, folder / "0.zarr.zip", need=Eigenvectors())
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


@pytest.fixture(scope="module")
def stored_listings(folders):
    """Listings made of annotations in the stored pixels, of the photos held sideways."""
    found = {}
    for orientation in SIDEWAYS:
        path = folders[orientation] / "annotations.json"
        image = {"id": 1, "file_name": "photo.png", **STORED_SIZE}
        path.write_text(json.dumps({"images": [image], "annotations": []}))
        found[orientation] = list_images(
            folders[orientation], ground_truth=path, ids="ground_truth"
        )
    return found


def test_eigenvectors_are_the_same(eigenvectors):
    vectors = [open_eigenvectors(path).vector(0) for path in eigenvectors.values()]
    for vector in vectors[1:]:
        np.testing.assert_array_equal(vector, vectors[0])


def test_pseudo_masks_are_the_same_and_of_the_upright_size(folders, eigenvectors):
    records = [
        next(process_shard(LISTING, folders[held], [eigenvectors[held]], VOTECUT))
        for held in (1, 3, 6, 8)  # masks take a second each
    ]
    assert all(record == records[0] for record in records)
    assert (records[0].image["width"], records[0].image["height"]) == (144, 96)
    best = records[0].annotations[0]
    assert best["segmentation"]["size"] == [96, 144]
    x, y, width, height = best["bbox"]
    assert (x + width / 2, y + height / 2) == pytest.approx((105, 40), abs=10)


@pytest.mark.parametrize("orientation", [5, 8])
def test_pseudo_masks_are_of_the_pixels_that_annotations_mean(
    folders, stored_listings, orientation
):
    listing, folder = stored_listings[orientation], folders[orientation]
    path = folder / "stored.zarr.zip"
    backbone = load_backbone(backbone_spec("pixels_p16"))
    extract_shard(listing, folder, backbone, path, need=Eigenvectors())
    # The same as of a photo that was never turned.
    plain = folder / "plain"
    plain.mkdir()
    Image.open(folder / "photo.png").copy().save(plain / "photo.png", exif=Image.Exif())
    extract_shard(LISTING, plain, backbone, plain / "0.zarr.zip", need=Eigenvectors())
    vectors = [open_eigenvectors(one).vector(0) for one in (path, plain / "0.zarr.zip")]
    np.testing.assert_array_equal(*vectors)
    record = next(process_shard(listing, folder, [path], VOTECUT))
    expected = next(process_shard(LISTING, plain, [plain / "0.zarr.zip"], VOTECUT))
    assert record == expected
    assert record.annotations[0]["segmentation"]["size"] == [144, 96]
    # Vectors and masks cannot be of different ways up.
    with pytest.raises(DataError, match=r"stored\.zarr\.zip: .*another dataset"):
        next(process_shard(LISTING, folder, [path], VOTECUT))


def test_images_of_a_size_that_fits_neither_way_are_accounted_for(folders, tmp_path):
    listing = LISTING.assign(width=100, height=144)
    backbone = load_backbone(backbone_spec("pixels_p16"))
    path = tmp_path / "0.zarr.zip"
    extract_shard(listing, folders[6], backbone, path, need=Eigenvectors())
    assert open_eigenvectors(path).status == ("wrong_size",)
    image = next(process_shard(listing, folders[6], [path], VOTECUT)).image
    assert image["status"] == "wrong_size"
    assert image["reason"] == "is 144 x 96 pixels, but 100 x 144 in its annotations"


def test_training_sees_masks_over_the_same_pixels(folders):
    samples = [load_sample(record(folder)) for folder in folders.values()]
    for sample in samples:
        np.testing.assert_array_equal(sample.image, samples[0].image)
        assert sample.image[sample.masks[0]].min(axis=0)[0] >= 200
        assert sample.image[~sample.masks[0]].max() < 40


@st.composite
def turned_photos(draw):
    """A photo in any orientation with its one bright object annotated, upright or as stored.

    Returns its orientation, the upright photo's bright pixels, and the annotated mask. It is as
    stored only if that size differs from the upright one; otherwise it would be ambiguous.
    """
    width, height = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    bright = np.zeros((height, width), dtype=bool)
    bright[top : draw(st.integers(top + 1, height)), left : draw(st.integers(left + 1, width))] = 1
    orientation = draw(st.sampled_from(list(STORED)))
    if draw(st.booleans()) and orientation in SIDEWAYS and width != height:
        return orientation, bright, np.array(STORED[orientation](Image.fromarray(bright)))
    return orientation, bright, bright


@given(photo=turned_photos())
def test_training_masks_lie_on_what_they_were_drawn_on(tmp_path_factory, photo):
    orientation, bright, mask = photo
    folder = tmp_path_factory.mktemp("photo")
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = STORED[orientation](Image.fromarray(bright.astype(np.uint8) * 200))
    stored.save(folder / "photo.png", exif=exif)
    rle = masks.encode(mask)
    one = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": rle, **masks.geometry(rle)}
    height, width = mask.shape
    content = {
        "images": [{"id": 1, "file_name": "photo.png", "width": width, "height": height}],
        "categories": [{"id": 1}],
        "annotations": [one],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    sample = load_sample(read_annotations(folder / "annotations.json", folder)[0])
    np.testing.assert_array_equal(sample.image[:, :, 0] > 100, sample.masks[0])
    np.testing.assert_array_equal(sample.masks[0], mask)
    left, top, right, bottom = sample.boxes[0].astype(int)
    assert sample.masks[0][top:bottom, left:right].sum() == mask.sum()


def test_predictions_see_the_same_image(folders):
    rows = [ListedImage(1, "photo.png")]
    inputs = [_Images(rows, folder, (48, 100))[0] for folder in folders.values()]
    for item in inputs:
        assert (item.content["height"], item.content["width"]) == (96, 144)
        assert item.content["image"].equal(inputs[0].content["image"])


def test_the_report_shows_the_same_picture(folders):
    listed = ListedImage(1, "photo.png")
    cards = [make_card(folder, listed, [], {}) for folder in folders.values()]
    assert all(card == cards[0] for card in cards)
    assert (cards[0].panels[0].width, cards[0].panels[0].height) == (288, 192)


def test_the_report_shows_the_pixels_that_annotations_mean(folders):
    listed = ListedImage(1, "photo.png", (96, 144))
    panel = make_card(folders[6], listed, [], {}).panels[0]
    assert (panel.width, panel.height) == (192, 288)


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
