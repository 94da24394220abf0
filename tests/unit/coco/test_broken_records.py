"""Records broken at random: every command refuses them in a sentence, or reads them."""

import copy
import importlib.util
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.errors import CuvlerError

_spec = importlib.util.spec_from_file_location("commands", Path(__file__).parent / "commands.py")
commands = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(commands)

numbers = st.one_of(
    st.integers(-3, 50),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**20, 10**400, 1e9, -1e9, 1e308, 1.5]),
    st.floats(),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.text(max_size=6),
    st.sampled_from(["1", "1.0", "0", "true", "", "\ud800", "a\0b", "b'04'", "..", "/", "NaN"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=7),
        st.dictionaries(st.sampled_from(["size", "counts", "id", "bbox", "x"]), inner, max_size=3),
    ),
    max_leaves=12,
)


def paths(value, path=()):
    """All places of a json value."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(part, (*path, key))


def place_of(content, path):
    for key in path[:-1]:
        content = content[key]
    return content


@st.composite
def broken(draw, whole):
    """A copy in which one to three values are replaced, deleted or added."""
    content = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = sorted(paths(content), key=str)
        if not places:
            break
        path = draw(st.sampled_from(places))
        place, key = place_of(content, path), path[-1]
        change = draw(st.sampled_from(["replace", "delete", "add", "repeat"]))
        if change == "replace":
            place[key] = draw(values)
        elif change == "delete":
            del place[key]
        elif isinstance(place, list):
            place.append(copy.deepcopy(place[key]) if change == "repeat" else draw(values))
        else:
            keys = st.sampled_from(["ignore", "iscrowd", "score", "area", "ytid", "x"])
            place[draw(keys)] = draw(values)
    return content


def run_all(runs, path, good):
    for command, run in runs.items():
        message = path.name
        try:
            run(path, good)
        except CuvlerError as error:
            message = str(error)
        assert path.name in message, (command, message)
        assert len(message) < 1000, command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    logging.getLogger("cuvler").setLevel(logging.ERROR)
    yield tmp_path_factory.mktemp("broken")
    logging.getLogger("cuvler").setLevel(logging.NOTSET)


@settings(max_examples=120)
@given(content=broken(commands.annotations()))
def test_annotations_are_refused_or_read(folder, content):
    path = commands.write(folder, "annotations", content)
    run_all(commands.READ_ANNOTATIONS, path, commands.good_files(folder))


@settings(max_examples=120)
@given(content=broken(commands.results()))
def test_results_are_refused_or_read(folder, content):
    path = commands.write(folder, "results", content)
    run_all(commands.READ_RESULTS, path, commands.good_files(folder))


@settings(max_examples=120)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_read(folder, data):
    name = data.draw(st.sampled_from(["annotations", "results"]))
    text = json.dumps(getattr(commands, name)()).encode()
    start = data.draw(st.integers(0, len(text) - 1))
    removed = data.draw(st.sampled_from([0, 1, 1, 1, 5, len(text)]))
    path = commands.write(
        folder, name, text[:start] + data.draw(st.binary(max_size=4)) + text[start + removed :]
    )
    runs = commands.READ_ANNOTATIONS if name == "annotations" else commands.READ_RESULTS
    run_all(runs, path, commands.good_files(folder))
