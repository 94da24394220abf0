import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvler import coco_json
from cuvler.coco_json import stream_annotations, stream_records, stream_results, to_rle
from cuvler.errors import DataError
from cuvler.masks import decode

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
records = st.dictionaries(st.text(max_size=3), values, max_size=3)


@pytest.fixture
def read_with_chunks(tmp_path, monkeypatch):
    """Return what ``read`` yields for a text, after checking that chunk sizes do not matter."""

    def run(read, text):
        path = tmp_path / "coco.json"
        path.write_text(text, encoding="utf-8")
        results = []
        for chunk in (1, 7, 1 << 22):
            monkeypatch.setattr(coco_json, "_CHUNK", chunk)
            results.append(list(read(path)))
        assert results[0] == results[1] == results[2]
        return results[0]

    return run


# The fixture holds no state between examples.
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(records, max_size=4), indent=st.sampled_from([None, 1]))
def test_results_are_what_json_reads(read_with_chunks, content, indent):
    assert read_with_chunks(stream_results, json.dumps(content, indent=indent)) == content


def test_annotations_come_section_by_section(read_with_chunks):
    content = {
        "info": {"tau": 0.15},
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [],
        "version": 12,
        "excluded": [[1], "x"],
    }
    pairs = read_with_chunks(stream_annotations, " " + json.dumps(content, indent=2) + "\n")
    assert pairs == [
        ("info", {"tau": 0.15}),
        ("images", {"id": 1}),
        ("images", {"id": 2}),
        ("version", 12),
        ("excluded", [1]),
        ("excluded", "x"),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '[{"a":1}', '[{"a":1}{"a":2}]', '[{"a":1},]', '[{"a":', "[{}] []", "[,{}]"],
)
def test_results_that_are_not_whole_are_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"results\.json: not valid COCO json"):
        list(stream_results(path))


@pytest.mark.parametrize("text", ["", "{", '{"a"}', '{"a":[}', '{"a":1,}', '{"a":1}}'])
def test_annotations_that_are_not_whole_are_refused(tmp_path, text):
    path = tmp_path / "annotations.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"annotations\.json: not valid COCO json"):
        list(stream_annotations(path))


def test_one_format_in_place_of_the_other_is_named_without_advice_to_delete(tmp_path):
    path = tmp_path / "found.json"
    for text, read, message in [
        ("[]", stream_annotations, "COCO results .* not COCO annotations"),
        ("{}", stream_results, "COCO annotations .* not COCO results"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=message) as error:
            list(read(path))
        assert "delete" not in str(error.value)


def test_records_come_from_either_format(read_with_chunks):
    found = [{"image_id": 1}, {"image_id": 2}]
    for content in (found, {"images": [{"id": 1}], "annotations": found, "excluded": []}):
        assert read_with_chunks(stream_records, json.dumps(content)) == found


def test_every_kind_of_segmentation_becomes_the_same_rle():
    polygon = {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}
    counts = [2 * 8 + 1, 3, 5, 3, 5, 3, 5, 3, 4 * 8 + 4]
    uncompressed = {"segmentation": {"size": [8, 10], "counts": counts}}
    box = {"bbox": [2, 1, 4, 3], "segmentation": []}
    compressed = {"segmentation": to_rle(uncompressed, 8, 10)}
    masks = [decode(to_rle(r, 8, 10)) for r in (polygon, uncompressed, box, compressed)]
    expected = np.zeros((8, 10), bool)
    expected[1:4, 2:6] = True
    for mask in masks:
        assert (mask == expected).all()


def test_missing_files_are_named(tmp_path):
    for read in (stream_results, stream_annotations, stream_records):
        with pytest.raises(DataError, match=r"coco\.json: no such file"):
            list(read(tmp_path / "coco.json"))


def test_a_record_that_never_ends_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_json, "_CHUNK", 10)
    monkeypatch.setattr(coco_json, "_LONGEST", 100)
    path = tmp_path / "results.json"
    path.write_text('[{"a":' + "1," * 10_000)
    with pytest.raises(DataError, match="not valid"):
        list(stream_results(path))
