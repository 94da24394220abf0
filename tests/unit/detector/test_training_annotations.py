"""Training annotations in a file that all processes map."""

import json
import pickle

import numpy as np
import pytest

pytest.importorskip("detectron2")

from cuvler import masks
from cuvler.detector import training_annotations, training_file
from cuvler.detector.training_annotations import FILE, read_annotations
from cuvler.detector.training_file import Instance, Records
from cuvler.download.digests import file_sha256, record_sha256
from cuvler.errors import DataError

POLYGONS = [[1, 1, 9, 1, 9.5, 9], [0.25, 0.5, 3, 0, 3, 3]]


@pytest.fixture
def content(monkeypatch):
    """Eleven images, also without annotations, and annotations of all kinds in any order."""
    monkeypatch.setattr(training_file, "_ROWS", 4)
    generator = np.random.default_rng(0)
    images = [
        {"id": int(number), "file_name": f"é {number}.jpg", "width": 20 + index, "height": 25}
        for index, number in enumerate(generator.permutation(1000)[:11])
    ]
    annotations = []
    for number in range(29):
        image = images[generator.integers(8)]
        mask = generator.random((image["height"], image["width"])) < 0.5
        annotation = {"image_id": image["id"], "category_id": int(generator.choice([7, 90]))}
        annotation["segmentation"] = masks.encode(mask) if number % 3 else POLYGONS
        if number % 2:
            annotation["bbox"] = [1, 2.5, 3, number]
        if number % 5:
            annotation["score"] = number / 29
        annotations.append(annotation | {"id": number, "iscrowd": int(number % 7 == 0)})
    categories = [{"id": 90, "name": "mug"}, {"id": 7, "name": "can"}, {"id": 8, "name": "cup"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def path(content, tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    return path


def plain_records(content, labels):
    """The records as they are in memory, in the file's order."""
    found = []
    for image in content["images"]:
        instances = [
            Instance(
                one["segmentation"],
                labels[one["category_id"]],
                one.get("score", 1.0),
                tuple(one["bbox"]) if "bbox" in one else None,
            )
            for one in content["annotations"]
            if one["image_id"] == image["id"] and not one["iscrowd"]
        ]
        sides = {"width": image["width"], "height": image["height"]}
        name = f"root/{image['file_name']}"
        found.append({"file_name": name, "image_id": image["id"], **sides, "instances": instances})
    return found


@pytest.mark.parametrize("class_agnostic", [True, False])
@pytest.mark.parametrize("keep_empty", [True, False])
def test_records_are_those_of_the_json(content, path, class_agnostic, keep_empty):
    records = read_annotations(path, "root", class_agnostic=class_agnostic, keep_empty=keep_empty)
    labels = {7: 0, 90: 0} if class_agnostic else {7: 0, 90: 2}
    expected = plain_records(content, labels)
    if not keep_empty:
        expected = [record for record in expected if record["instances"]]
        assert len(expected) < len(content["images"])
    assert list(records) == expected
    assert records[-1] == expected[-1]
    assert records[1:6] == expected[1:6]
    assert records.wide.tolist() == [one["width"] > one["height"] for one in expected]
    with pytest.raises(IndexError):
        records[len(expected)]
    # Their file was temporary.
    assert not records.path.exists()


def test_a_started_process_maps_the_file(path, tmp_path):
    records = read_annotations(path, "root", folder=tmp_path)
    passed = pickle.dumps(records)
    assert len(passed) < 500
    assert list(pickle.loads(passed)) == list(records)


def test_the_file_is_used_again_for_the_same_content_and_settings(path, tmp_path, monkeypatch):
    written = []
    write = training_annotations._write
    monkeypatch.setattr(
        training_annotations, "_write", lambda *args: written.append(args) or write(*args)
    )

    def count(**options):
        written.clear()
        read_annotations(path, options.pop("root", "root"), folder=tmp_path, **options)
        return len(written)

    assert [count(), count()] == [1, 0]
    path.touch()
    assert count() == 0
    for changed in ({"keep_empty": True}, {"class_agnostic": False}, {"root": "other"}):
        assert [count(**changed), count(**changed)] == [1, 0]
    assert count() == 1
    path.write_text(path.read_text() + " ")
    assert [count(), count()] == [1, 0]
    # A file name that is allowed to leave the image root is not allowed for ever.
    monkeypatch.setenv("CUVLER_ALLOW_OUTSIDE", "1")
    assert count() == 1
    # A run killed between the file and its sha256.
    (tmp_path / f"{FILE}.sha256").unlink()
    assert [count(), count()] == [1, 0]
    assert {one.name for one in tmp_path.iterdir()} == {path.name, FILE, f"{FILE}.sha256"}


@pytest.mark.parametrize("place", [0, 0.3, 0.6, 0.95, None])
def test_a_damaged_file_is_named_and_written_again(path, tmp_path, caplog, place):
    expected = list(read_annotations(path, "root", folder=tmp_path))
    file = tmp_path / FILE
    whole = file.read_bytes()
    damaged = bytearray(whole)
    if place is None:
        del damaged[len(damaged) // 2 :]
    else:
        damaged[int(place * len(damaged))] ^= 0x10
    file.write_bytes(damaged)
    assert list(read_annotations(path, "root", folder=tmp_path)) == expected
    assert f"{FILE}: damaged" in caplog.text
    assert file.read_bytes() == whole


def test_a_file_that_cannot_be_mapped_is_named(tmp_path):
    with pytest.raises(DataError, match=r"annotations\.arrow: no such file"):
        Records(tmp_path / FILE)
    for content in (b"", b"text" * 99):
        (tmp_path / FILE).write_bytes(content)
        record_sha256(tmp_path / FILE, file_sha256(tmp_path / FILE))
        with pytest.raises(DataError, match=r"annotations\.arrow: damaged"):
            Records(tmp_path / FILE)


def test_an_unusable_json_leaves_no_file(path, tmp_path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    with pytest.raises(DataError, match=r"truth\.json: no annotated image"):
        read_annotations(path, "root", folder=tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
