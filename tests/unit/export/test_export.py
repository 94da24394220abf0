import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from cuvler.coco.segmentations import polygons_rle
from cuvler.commands.export import FORMATS
from cuvler.errors import DataError
from cuvler.export import formats
from cuvler.listing import write_listing
from cuvler.masks import decode, iou

from .conftest import HEIGHT, PIECES, POLYGON, RING, WIDTH, square
from .test_outlines import unpacked


def test_the_command_knows_all_formats():
    assert list(FORMATS) == list(formats.FORMATS)


@pytest.mark.parametrize("name", ["coco-polygons", "coco-rle", "cvat"])
def test_pycocotools_reads_the_same_masks(example, name):
    output, printed = example.export(name)
    coco = COCO(output)
    assert coco.loadImgs([5, 2, 9]) == example.content["images"]
    assert [category["name"] for category in coco.loadCats([3, 7])] == ["cat", "dog"]
    for number, mask in example.masks.items():
        np.testing.assert_array_equal(coco.annToMask(coco.anns[number]), mask)
    more = {"attributes": {"occluded": False}} if name == "cvat" else {}
    expected = example.content["annotations"][0] | more
    assert coco.anns[11] | {"segmentation": 0} == expected | {"segmentation": 0}
    assert coco.anns[14]["iscrowd"] == 1
    assert isinstance(coco.anns[14]["segmentation"]["counts"], list)
    if name == "coco-rle":
        assert isinstance(coco.anns[11]["segmentation"]["counts"], list)
        assert coco.annToMask(coco.anns[15]).sum() == 0
    else:
        assert coco.anns[13]["segmentation"] == POLYGON
        assert [len(coco.anns[number]["segmentation"]) for number in (11, 12)] == [1, 2]
        assert "IoU of 2 outlines with their masks: mean 1.0000, smallest 1.0000" in printed
        assert "left out: 1 empty masks" in printed


def test_yolo_has_an_outline_a_line(example):
    """Read as Ultralytics' pages describe it: labels/ in place of images/, then class x y x y."""
    output, printed = example.export("yolo")
    settings = yaml.safe_load((output / "data.yaml").read_text())
    assert settings["names"] == {0: "cat", 1: "dog"}
    images = (output / settings["train"]).read_text().split()
    assert images == ["./images/a/five.jpg", "./images/two.png", "./images/nine.jpg"]
    lines = [
        (output / re.sub(r"\.\w+$", ".txt", image.replace("/images/", "/labels/"))).read_text()
        for image in images
    ]
    (dog, cat), (pieces,), nothing = ([*map(str.split, text.splitlines())] for text in lines)
    assert nothing == []
    polygon = decode(polygons_rle(POLYGON, (WIDTH, HEIGHT)))
    for (number, *shares), expected, mask in (
        (dog, "1", polygon),
        (cat, "0", RING),
        (pieces, "1", PIECES),
    ):
        assert number == expected
        corners = np.reshape(shares, (-1, 2)).astype(float) * (WIDTH, HEIGHT)
        read = decode(polygons_rle([corners.ravel().tolist()], (WIDTH, HEIGHT)))
        assert iou(read, mask) > 0.95 if mask is polygon else (read == mask).all()
    assert "left out: 1 crowds" in printed
    assert "left out: 1 empty" in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo", "coco-rle"])
def test_supervision_reads_the_same_masks(example, name):
    import supervision as sv

    images = example.folder / "images"
    (images / "a").mkdir(parents=True)
    example.content["images"] = example.content["images"][1:]  # it does not look into folders
    example.content["annotations"] = [example.content["annotations"][1]]
    for image in example.content["images"]:
        Image.new("RGB", (WIDTH, HEIGHT)).save(images / image["file_name"])
    output, _ = example.export(name, path=example.write(example.content))
    if name == "yolo":
        paths = [str(path) for path in (images, output / "labels", output / "data.yaml")]
        dataset = sv.DetectionDataset.from_yolo(*paths, force_masks=True)
    else:
        dataset = sv.DetectionDataset.from_coco(str(images), str(output), force_masks=True)
    found = {Path(path).name: detections for path, _, detections in dataset}
    assert dataset.classes == ["cat", "dog"]
    assert len(found["nine.jpg"]) == 0
    (mask,) = found["two.png"].mask
    assert [dataset.classes[number] for number in found["two.png"].class_id] == ["dog"]
    if name == "yolo":  # it rounds coordinates, and fills outlines with OpenCV
        assert not (PIECES & ~mask)[:20].any()
        assert iou(mask, PIECES) > 0.6
    else:
        np.testing.assert_array_equal(mask, PIECES)


def test_label_studio_tasks_have_predictions(example):
    output, printed = example.export("label-studio")
    tasks = json.loads(output.read_text())
    assert [task["data"]["image"] for task in tasks] == [
        f"/data/local-files/?d={name}" for name in ("a/five.jpg", "two.png", "nine.jpg")
    ]
    assert tasks[2]["predictions"] == []
    regions = {
        region["value"]["brushlabels"][0]: region
        for task in tasks[:2]
        for region in task["predictions"][0]["result"]
    }
    for name, mask in (("cat", RING), ("dog", PIECES)):
        region = regions[name]
        assert (region["original_width"], region["original_height"]) == (WIDTH, HEIGHT)
        pixels = unpacked(region["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)
        np.testing.assert_array_equal(pixels[..., 3] > 0, mask)
    assert regions["cat"]["score"] == 0.4
    assert "left out: 1 crowds" in printed


def test_label_masks_show_the_better_of_two(example):
    output, _ = example.export("label-masks")
    assert (output / "labelmap.txt").read_text().splitlines() == [
        "background:0,0,0::",
        "cat:128,0,0::",
        "dog:0,128,0::",
    ]
    polygon = decode(polygons_rle(POLYGON, (WIDTH, HEIGHT)))
    expected = np.where(polygon, 2, np.where(RING, 1, 0))
    picture = Image.open(output / "SegmentationClass/a/five.png")
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), expected)
    assert picture.convert("RGB").getpixel((11, 3)) == (0, 128, 0)
    objects = np.asarray(Image.open(output / "SegmentationObject/two.png"))
    np.testing.assert_array_equal(objects, np.where(PIECES, 1, np.where(square(20, 2), 255, 0)))
    assert not np.asarray(Image.open(output / "SegmentationObject/nine.png")).any()


def test_every_mask_is_a_picture(example):
    output, _ = example.export("masks")
    table = pd.read_csv(output / "masks.csv")
    assert table["file"].tolist() == [
        *("a/five/000.png", "a/five/001.png"),
        *("two/000.png", "two/001.png", "two/002.png"),
    ]
    assert table["category"].tolist() == ["dog", "cat", "cat", "dog", "cat"]
    np.testing.assert_array_equal(np.asarray(Image.open(output / "a/five/001.png")), RING * 255)


def test_tables_have_a_row_a_box(example):
    csv = pd.read_csv(example.export("csv")[0])
    parquet = pd.read_parquet(example.export("parquet")[0])
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    row = parquet[parquet["category"] == "cat"].iloc[0]
    assert row[["image_id", "file_name", "image_width"]].tolist() == [5, "a/five.jpg", WIDTH]
    assert row[["x", "y", "width", "height", "score"]].tolist() == [2, 2, 14, 14, 0.4]
    assert parquet["score"].isna().sum() == 1
    assert parquet["iscrowd"].sum() == 1


def test_records_can_be_chosen(example):
    def ids(*options):
        output, _ = example.export("coco-rle", *options)
        return [record["id"] for record in json.loads(output.read_text())["annotations"]]

    assert ids() == [13, 11, 14, 12, 15]
    assert ids("--score-threshold", "0.7") == [13, 14, 12]
    assert ids("--detections-per-image", "1") == [13, 14]
    assert ids("--category", "cat", "--score-threshold", "0.2") == [11, 14]
    with pytest.raises(
        DataError, match=r"masks\.json: no category 'cow'; it has cat, dog"
    ) as error:
        ids("--category", "cow")
    assert error.value.parameter == "category"


def test_results_get_names_and_sizes(example):
    results = [{**record} for record in example.content["annotations"] if "score" in record]
    path = example.write(results, "results.json")
    with pytest.raises(DataError, match="give the ground truth or the listing"):
        example.export("csv", path=path)
    truth = pd.read_csv(example.export("csv", "--ground-truth", str(example.path), path=path)[0])
    assert truth["category"].tolist() == ["dog", "cat", "dog", "cat"]
    rows = [(image["id"], image["file_name"], 0) for image in example.content["images"]]
    listing = pd.DataFrame(rows, columns=["image_id", "file_name", "shard"])
    write_listing(listing.astype({"shard": "int32"}), example.folder / "listing.parquet")
    words = ("--listing", str(example.folder / "listing.parquet"))
    coco = COCO(example.export("coco-rle", *words, path=path)[0])
    # The sizes of masks; the last image has none, and so no size.
    sizes = [coco.imgs[number].get("width") for number in (5, 2, 9)]
    assert sizes == [WIDTH, WIDTH, None]
    assert [category["name"] for category in coco.loadCats([3, 7])] == ["3", "7"]


def test_a_box_without_a_mask_stays_one_or_is_filled(example):
    example.content["annotations"] = [
        {"id": 1, "image_id": 2, "category_id": 3, "bbox": [3, 4, 5, 6]}
    ]
    example.path = example.write(example.content)
    (found,) = json.loads(example.export("cvat")[0].read_text())["annotations"]
    assert (found["segmentation"], found["bbox"], found["area"]) == ([], [3, 4, 5, 6], 30)
    output, _ = example.export("masks")
    assert np.asarray(Image.open(output / "two/000.png")).astype(bool).sum() == 30


def test_what_is_there_is_not_written_over(example):
    output, _ = example.export("masks")
    with pytest.raises(DataError, match=r"masks\.exported: is there already") as error:
        example.export("masks")
    assert error.value.parameter == "output"
    (example.folder / "out/csv.exported").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        example.export("csv")
    assert sorted(path.name for path in output.parent.iterdir()) == [
        *("csv.exported", "masks.exported")
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("../two.png", "b.jpg"), "leads out"),
        (("/two.png", "b.jpg"), "leads out"),
        (("a/five.png", "b.jpg"), r"a/five\.txt is there already"),
        (("line\nbreak.jpg", "b.jpg"), "line break"),
    ],
)
def test_names_that_have_no_place_are_refused(example, names, message):
    for image, name in zip(example.content["images"][1:], names, strict=True):
        image["file_name"] = name
    with pytest.raises(DataError, match=message):
        example.export("yolo", path=example.write(example.content))
    assert list((example.folder / "out").iterdir()) == []
