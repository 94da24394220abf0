import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvler.coco import stream
from cuvler.coco.stream import OPENED, stream_content, stream_file
from cuvler.errors import DataError

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
            monkeypatch.setattr(stream, "_CHUNK", chunk)
            results.append(list(read(path)))
        assert results[0] == results[1] == results[2]
        return results[0]

    return run


# The fixture holds no state between examples.
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(records, max_size=4), indent=st.sampled_from([None, 1]))
def test_results_are_what_json_reads(read_with_chunks, content, indent):
    pairs = read_with_chunks(stream_file, json.dumps(content, indent=indent))
    assert pairs == [("", OPENED), *(("", record) for record in content)]


def test_annotations_come_section_by_section(read_with_chunks):
    content = {
        "info": {"tau": 0.15},
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [],
        "version": 12,
        "excluded": [[1], "x"],
    }
    pairs = read_with_chunks(stream_file, " " + json.dumps(content, indent=2) + "\n")
    assert pairs == [
        ("info", OPENED),
        ("info", {"tau": 0.15}),
        ("images", OPENED),
        ("images", {"id": 1}),
        ("images", {"id": 2}),
        ("annotations", OPENED),
        ("version", OPENED),
        ("version", 12),
        ("excluded", OPENED),
        ("excluded", [1]),
        ("excluded", "x"),
    ]
    assert list(stream_content(content)) == pairs


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", '[{"a":1}', '[{"a":1}{"a":2}]', '[{"a":1},]', '[{"a":', "[{}] []", "[,{}]"),
        *("{", '{"a"}', '{"a":[}', '{"a":1,}', '{"a":1}}', "{1:2}", "[nul]", "7 8", "abc", "[1e]"),
        *("[" + "1" * 5000 + "]", '{"images": {}}', '{"annotations": null}', '{"categories": 1}'),
    ],
)
def test_files_that_are_not_whole_are_refused_without_advice_to_delete(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"results\.json: not valid COCO json") as error:
        list(stream_file(path))
    assert "delete" not in str(error.value)


@pytest.mark.parametrize("info", ['{"method":"votecut","backbones":[]}', None])
def test_files_of_ours_are_recognised_and_may_be_deleted(tmp_path, info):
    path = tmp_path / "shard.json"
    path.write_text(f'{{"info":{info},"images":[{{' if info else "[")
    with pytest.raises(DataError, match=r"shard\.json: .*delete the file and run again"):
        list(stream_file(path, made_here=info is None))


def test_positions_are_those_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_CHUNK", 5)
    path = tmp_path / "results.json"
    path.write_text('[{"a": 1}, {"a": 2}, {"a" 3}]')
    with pytest.raises(DataError, match="at character 21"):
        list(stream_file(path))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_text_of_other_encodings_is_named(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(stream, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    text = '[{"name": "café 日本 \U0001f600"}]'
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_bytes(text.encode(encoding))
        expected = [("", OPENED), ("", {"name": "café 日本 \U0001f600"})]
        assert list(stream_file(path)) == expected
    latin = '[{"name": "café"}]'.encode("latin-1")
    broken = {latin: r"UTF-8 .*0xe9 at position 14, .*latin-1", text.encode()[:-4]: "ends within"}
    broken |= {text.encode("utf-16"): "UTF-16", text.encode("utf-16-be"): "UTF-16"}
    broken |= {gzip.compress(text.encode()): "gzip", b"PAR1\x15\x04": "a Parquet file"}
    broken |= {b"\xff\xd8\xff\xe0\0\x10": "a JPEG image", b"\x89PNG\r\n": "a PNG image"}
    for content, message in broken.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.json: not valid COCO json \(.*{message}"):
            list(stream_file(path))


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a\.json: a pipe"):
        list(stream_file(tmp_path / "a.json"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_deep_nesting_is_a_sentence(tmp_path, text):
    path = tmp_path / "deep.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"deep\.json: .*nested too deeply"):
        list(stream_file(path))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"coco\.json: no such file"):
        list(stream_file(tmp_path / "coco.json"))


def test_a_record_that_never_ends_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_CHUNK", 10)
    monkeypatch.setattr(stream, "_LONGEST", 100)
    path = tmp_path / "results.json"
    path.write_text('[{"a":' + "1," * 10_000)
    with pytest.raises(DataError, match=r"not valid .*a record is longer than"):
        list(stream_file(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"<html>", "starts with '<'"),
        (b'{"annotations": [], "annotations": []}', "'annotations' is there twice"),
        (b"[{}]" + bytes(100), "extra data after the end"),
        (b"[" + b"1" * 5000 + b"]", "too many digits, at character 1"),
        ("[{}]".encode("utf-32"), "UTF-32"),
        ("[{}]".encode("utf-32-be"), "UTF-32"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json: not valid COCO json \(.*{message}"):
        list(stream_file(path))
