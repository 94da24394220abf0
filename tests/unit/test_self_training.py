import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.commands.self_training import command
from cuvler.errors import DataError
from cuvler.masks import decode, encode, geometry
from cuvler.self_training import cutler_annotations, cuvler_annotations

HEIGHT, WIDTH = 30, 40


def record(image_id, score, box=(2, 3, 10, 8), size=(HEIGHT, WIDTH)):
    x, y, width, height = box
    mask = np.zeros(size, bool)
    mask[y : y + height, x : x + width] = True
    rle = encode(mask)
    return {
        "image_id": image_id,
        "category_id": 1,
        "segmentation": rle,
        "bbox": geometry(rle)["bbox"],
        "score": score,
    }


def listing(*image_ids):
    return pd.DataFrame(
        {
            "image_id": image_ids,
            "file_name": [f"{i}.jpg" for i in image_ids],
            "shard": [0] * len(image_ids),
        }
    )


def previous(*records, images=(1, 2, 3)):
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in images
        ],
        "annotations": [dict(r, id=100 + n, iscrowd=0) for n, r in enumerate(records)],
        "excluded": [],
    }


def cuvler(predictions, images=(1, 2, 3), **settings):
    """Write records to files, run, and return the output's content."""
    with TemporaryDirectory() as folder:
        found, output = Path(folder, "predictions.json"), Path(folder, "annotations.json")
        found.write_text(json.dumps(predictions))
        cuvler_annotations(found, listing(*images), output, **settings)
        return json.loads(output.read_text())


def cutler(before, predictions, images=(1, 2, 3), **settings):
    with TemporaryDirectory() as folder:
        names = ("previous.json", "predictions.json", "annotations.json")
        old, found, output = (Path(folder, name) for name in names)
        old.write_text(json.dumps(before))
        found.write_text(json.dumps(predictions))
        cutler_annotations(old, found, listing(*images), output, **settings)
        return json.loads(output.read_text())


def test_cuvler_keeps_scores_at_the_threshold_and_drops_scores_below():
    predictions = [record(1, 0.2), record(1, 0.1999), record(2, 0.9), record(1, 0.5)]
    content = cuvler(predictions, (1, 2), score_threshold=0.2)
    found = [(a["id"], a["image_id"], a["score"]) for a in content["annotations"]]
    assert found == [(1, 1, 0.5), (2, 1, 0.2), (3, 2, 0.9)]
    assert {a["iscrowd"] for a in content["annotations"]} == {0}
    assert content["annotations"][0]["area"] == 80
    assert content["info"] == {
        "score_threshold": 0.2,
        "detections_per_image": None,
        "num_predictions": 4,
        "num_predictions_kept": 3,
        "num_predictions_empty": 0,
        "num_previous_kept": 0,
    }


def test_the_number_of_predictions_per_image_is_limited():
    shifted = [record(1, (70 + shift) / 100, box=(shift, 3, 10, 8)) for shift in range(25)]
    predictions = [*shifted, record(2, 0.75), record(1, 0.99, box=(0, 0, 0, 0))]
    content = cuvler(predictions, score_threshold=0.7, detections_per_image=3)
    found = [(a["image_id"], a["score"]) for a in content["annotations"]]
    # The empty mask counts among the three.
    assert found == [(1, 0.94), (1, 0.93), (2, 0.75)]
    assert content["info"]["detections_per_image"] == 3
    assert content["info"]["num_predictions_empty"] == 1
    # Predictions beyond the limit replace no annotation.
    before = previous(record(1, 0.3, box=(5, 3, 10, 8)), record(1, 0.3, box=(23, 3, 10, 8)))
    content = cutler(before, predictions, score_threshold=0.7, detections_per_image=3)
    assert [a["bbox"][0] for a in content["annotations"] if a["image_id"] == 1] == [24, 23, 5]


def test_every_image_is_accounted_for():
    predictions = [record(1, 0.9), record(3, 0.1)]
    content = cuvler(predictions)
    size = {"width": WIDTH, "height": HEIGHT}
    # Image 3's size is known from a dropped prediction.
    assert content["images"] == [
        {"id": 1, "file_name": "1.jpg", **size},
        {"id": 3, "file_name": "3.jpg", **size},
    ]
    assert [(e["id"], e["status"]) for e in content["excluded"]] == [(2, "no_prediction")]


def test_areas_are_the_masks_and_boxes_the_detectors():
    holed = np.zeros((HEIGHT, WIDTH), bool)
    holed[5:15, 5:15] = True
    holed[8:10, 8:10] = False
    prediction = record(1, 0.9) | {"segmentation": encode(holed), "bbox": [4.5, 4.5, 11.0, 11.0]}
    annotation = cuvler([prediction], (1,))["annotations"][0]
    assert annotation["area"] == 96
    assert annotation["bbox"] == [4.5, 4.5, 11.0, 11.0]


def test_empty_masks_are_dropped_and_counted():
    empty = record(1, 0.9, box=(0, 0, 0, 0)) | {"bbox": [1.0, 1.0, 2.5, 3.0]}
    unsure = record(1, 0.1, box=(0, 0, 0, 0))
    content = cuvler([empty, record(1, 0.8), unsure], (1,))
    assert [a["score"] for a in content["annotations"]] == [0.8]
    assert content["info"]["num_predictions_kept"] == 1
    assert content["info"]["num_predictions_empty"] == 1
    # An empty mask does not replace an annotation either.
    content = cutler(previous(record(1, 0.3)), [empty], (1, 2, 3))
    assert [a["score"] for a in content["annotations"]] == [0.3]


@pytest.mark.parametrize(("shift", "stays"), [(0, False), (3, False), (4, True), (20, True)])
def test_cutler_drops_previous_annotations_that_a_prediction_replaces(shift, stays):
    # Two 10 x 8 boxes, one shifted by s: IoU (10 - s) / (10 + s), 0.54 for 3 and 0.43 for 4.
    content = cutler(previous(record(1, 0.3, box=(2 + shift, 3, 10, 8))), [record(1, 0.9)])
    assert [a["score"] for a in content["annotations"]] == ([0.9, 0.3] if stays else [0.9])


def test_cutler_drops_at_an_overlap_of_exactly_one_half():
    content = cutler(
        previous(record(1, 0.3, box=(0, 0, 20, 10))), [record(1, 0.9, box=(0, 0, 10, 10))]
    )
    assert [a["score"] for a in content["annotations"]] == [0.9]


def test_cutler_compares_with_kept_predictions_of_the_same_image_only():
    before = previous(record(1, 0.3), record(2, 0.3), record(3, 0.3))
    predictions = [record(1, 0.69), record(2, 0.7), record(5, 0.8)]
    # Image 5 was excluded before, so it only has predictions.
    content = cutler(before, predictions, (1, 2, 3, 5), score_threshold=0.7)
    assert [(a["image_id"], a["score"]) for a in content["annotations"]] == [
        (1, 0.3),
        (2, 0.7),
        (3, 0.3),
        (5, 0.8),
    ]
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4]
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 5]
    assert content["info"]["num_previous_kept"] == 2


boxes = st.tuples(st.integers(0, 20), st.integers(0, 15), st.integers(1, 20), st.integers(1, 15))


@settings(max_examples=40)
@given(
    before=st.lists(st.tuples(st.integers(1, 2), boxes), max_size=5),
    found=st.lists(st.tuples(st.integers(1, 2), boxes, st.floats(0, 1)), min_size=1, max_size=5),
)
def test_cutler_equals_an_implementation_with_arrays(before, found):
    previous_records = [record(image_id, 0.5, box) for image_id, box in before]
    predictions = [record(image_id, score, box) for image_id, box, score in found]
    predictions.append(record(3, 0.99))
    content = cutler(previous(*previous_records), predictions, score_threshold=0.4)
    expected = []
    for image_id in (1, 2, 3):
        kept = [p for p in predictions if p["image_id"] == image_id and p["score"] >= 0.4]
        expected += sorted(kept, key=lambda p: -p["score"])
        for annotation in previous_records:
            if annotation["image_id"] == image_id:
                one = decode(annotation["segmentation"])
                others = [decode(p["segmentation"]) for p in kept]
                if all((one & other).sum() / (one | other).sum() < 0.5 for other in others):
                    expected.append(annotation)
    assert [(a["image_id"], a["segmentation"], a["score"]) for a in content["annotations"]] == [
        (a["image_id"], a["segmentation"], a["score"]) for a in expected
    ]


def test_the_output_does_not_depend_on_the_order_of_records():
    predictions = [record(i, score) for i in (1, 2, 3) for score in (0.3, 0.8, 0.5)]
    assert cuvler(predictions[::-1]) == cuvler(predictions)
    before = [record(i, 0.3, box=(20, 9, 9, 9)) for i in (1, 2, 3)]
    assert [a["image_id"] for a in cutler(previous(*before[::-1]), predictions)["annotations"]] == [
        1, 1, 2, 2, 3, 3
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], r"0\.2 or more \(there are no predictions\)"),
        ([record(1, 0.1), record(1, 0.17)], r"the highest of 2 is 0\.17"),
        ([record(9, 0.5)], r"result 0 \(image 9\): image 9 is not one"),
        ([record(1, 0.5), record(1, 0.5, size=(31, 40))], r"result 1 .*\[31, 40\] .* \[30, 40\]"),
        (
            [record(1, 0.5), record(2, 0.5), record(1, 0.5, size=(31, 40))],
            r"image 1 has \(30, 40\) pixels .* but \(31, 40\)",
        ),
        ([record(1, float("nan"))], "'score' must be a number from 0 to 1, not nan"),
        ([record(1, 1.5)], r"'score' .* not 1\.5"),
        ([{"image_id": 1, "score": 0.5}], r"result 0 .*'segmentation'"),
    ],
)
def test_bad_predictions_are_named(predictions, message):
    with pytest.raises(DataError, match=message):
        cuvler(predictions, (1, 2))


def test_previous_annotations_of_another_dataset_are_named():
    with pytest.raises(DataError, match=r"previous\.json: image 2 \(id 3\): image 3 "):
        cutler(previous(), [record(1, 0.9)], (1, 2))


def test_a_failure_leaves_no_files(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([record(1, 0.1)]))
    with pytest.raises(DataError):
        cuvler_annotations(tmp_path / "p.json", listing(1), tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


@pytest.fixture
def files(tmp_path):
    paths = {name: tmp_path / name for name in ("p.json", "images.parquet", "a.json", "out.json")}
    paths["p.json"].write_text(json.dumps([record(1, 0.9), record(2, 0.75, box=(20, 9, 9, 9))]))
    listing(1, 2, 3).to_parquet(paths["images.parquet"])
    paths["a.json"].write_text(json.dumps(previous(record(1, 0.5), record(2, 0.5))))
    return paths


def run(files, *options):
    paths = ("--predictions", "p.json"), ("--listing", "images.parquet"), ("--output", "out.json")
    fixed = [word for option, name in paths for word in (option, str(files[name]))]
    return CliRunner().invoke(command, [*fixed, *options])


@pytest.mark.parametrize(
    ("keep_previous", "scores"), [(False, [0.9, 0.75]), (True, [0.9, 0.75, 0.5])]
)
def test_command_writes_either_recipe_and_is_reproducible(files, keep_previous, scores):
    options = ["--previous", str(files["a.json"])] if keep_previous else []
    outcome = run(files, *options, "--score-threshold", "0.7")
    assert outcome.exit_code == 0, outcome.output
    first = files["out.json"].read_bytes()
    assert [a["score"] for a in json.loads(first)["annotations"]] == scores
    run(files, *options, "--score-threshold", "0.7")
    assert files["out.json"].read_bytes() == first
