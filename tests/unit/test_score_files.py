"""Files of scores: each key is required, and others are refused."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.errors import CuvlerError, DataError
from cuvler.evaluation import evaluate_all
from cuvler.evaluation.score_files import read_metrics, read_scores

TRUTH = {
    "images": [{"id": 1, "width": 20, "height": 20}],
    "categories": [{"id": 1, "name": "a dog"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 8], "score": 0.5}]
WHOLE = evaluate_all(TRUTH, RESULTS, class_agnostic=False, max_detections=300)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def renamed(content, path):
    """A copy with the key at a path misspelt."""
    content = copy.deepcopy(content)
    *outer, key = path
    place = content
    for part in outer:
        place = place[part]
    place[f"{key}x"] = place.pop(key)
    return content


PATHS = [
    *(["bbox"], ["bbox", "AP50"], ["bbox", "AR100"], ["num_images"], ["num_results"]),
    *(["precision"], ["precision", "bbox"], ["precision", "bbox", "AP75"]),
]


def test_what_evaluation_writes_is_read(tmp_path):
    assert {"AP-a dog", "AR300"} <= WHOLE["bbox"].keys()
    assert read_scores(write(tmp_path / "a.json", WHOLE)) == WHOLE
    empty = evaluate_all(TRUTH | {"annotations": []}, [])
    assert read_scores(write(tmp_path / "a.json", empty)) == empty


@pytest.mark.parametrize("path", PATHS)
def test_misspelt_keys_are_named(tmp_path, path):
    file = write(tmp_path / "scores.json", renamed(WHOLE, path))
    with pytest.raises(DataError, match=rf"scores\.json: .*{path[-1]}.*delete"):
        read_scores(file)
    if path[0] == "precision":
        return
    without_curves = {key: value for key, value in WHOLE.items() if key != "precision"}
    entries = {"mine": renamed(without_curves, path)}
    with pytest.raises(DataError, match=rf"scores\.json: .*'mine': .*{path[-1]}"):
        read_metrics(write(file, entries))


@pytest.mark.parametrize("content", [[], 3, {"a": 1}, {"a": {"AP": 3}}, {"skipped": "no file"}])
def test_other_files_are_named(tmp_path, content):
    file = write(tmp_path / "scores.json", content)
    for read in (read_scores, read_metrics):
        with pytest.raises(DataError, match=r"scores\.json: not what `cuvler"):
            read(file)


@pytest.mark.parametrize("value", ["12", True, [], -1, 101, float("nan"), float("inf"), {}])
def test_values_that_are_no_scores_are_named(tmp_path, value):
    content = copy.deepcopy(WHOLE)
    content["bbox"]["AP50"] = value
    with pytest.raises(DataError, match=r"'AP50' must be a number from 0 to 100"):
        read_scores(write(tmp_path / "scores.json", content))


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_is(tmp_path_factory, data):
    text = json.dumps(WHOLE).encode()
    position = data.draw(st.integers(0, len(text) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    file = tmp_path_factory.getbasetemp() / "damaged.json"
    file.write_bytes(text[:position] + byte + text[position + 1 :])
    try:
        found = read_scores(file)
    except CuvlerError:
        return
    assert found.keys() == WHOLE.keys()
    assert {"AP50", "AR100"} <= found["bbox"].keys()
