import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cuvler.layout import EVALUATION, FILES, LISTING, WILDCARDS, DetectorName

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]*", fullmatch=True)
# Recipes with names that look like parts of a detector's name.
RECIPES = NAMES | st.builds(
    "".join,
    st.lists(
        st.sampled_from(["cuvler", "_", "round", "_round", "1", "0", "percent", "-"]), min_size=1
    ),
).filter(lambda name: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name))
NUMBERS = st.integers(0, 1000)
DETECTORS = st.builds(DetectorName, RECIPES, NUMBERS)
VALUES = {
    "shard": NUMBERS,
    "percent": NUMBERS,
    "detector": DETECTORS,
    "fine_tuned": st.builds(DetectorName, RECIPES, NUMBERS, NUMBERS),
    "file": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fullmatch=True),
    "format": st.sampled_from(["csv", "md"]),
}


@given(st.builds(DetectorName, RECIPES, NUMBERS, st.none() | NUMBERS))
def test_a_detectors_name_is_read_as_it_was_written(name):
    assert DetectorName.parse(str(name)) == name


@given(st.from_regex(r"[a0_]{0,8}_round[01]{1,3}(_[01]{1,3}percent)?", fullmatch=True))
def test_what_is_read_is_written_as_it_was(text):
    try:
        name = DetectorName.parse(text)
    except ValueError:
        assume(False)
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cuvler",
        "votecut",
        "_round0",
        "a_round",
        "a_round01",
        "a_round-1",
        "a_round1_5",
        "a/b_round1",
    ],
)
def test_other_names_are_not_detectors(text):
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        DetectorName.parse(text)


def test_each_round_has_a_previous_one_but_the_first():
    name = DetectorName.parse("cuvler_round2")
    assert str(name.previous) == "cuvler_round1"
    assert DetectorName("cuvler", 0).previous is None


def test_a_fine_tuned_detector_has_one_that_it_started_from():
    name = DetectorName.parse("cuvler_round2_5percent")
    assert str(name.pretrained) == "cuvler_round2"
    assert name.previous is None


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
@given(
    data=st.data(), root=st.sampled_from(["results", "/data/it's/run", ".", "results/fine_tuning"])
)
def test_a_path_is_read_as_it_was_built(file, data, root):
    wildcards = re.findall(r"\{(\w+)\}", file.pattern)
    names = {w: str(data.draw(VALUES.get(w, NAMES), label=w)) for w in wildcards}
    path = file.under(root, **names)
    assert file.names(path) == names
    assert path == Path(file.of(**names).replace(f"<{file.root}>", root))


@given(data=st.data())
def test_no_path_is_of_two_kinds(data):
    file = data.draw(st.sampled_from(list(FILES.values())))
    wildcards = re.findall(r"\{(\w+)\}", file.pattern)
    path = file.of(**{w: data.draw(VALUES.get(w, NAMES)) for w in wildcards})

    def match(other):
        expression = re.escape(other.output)
        for name, allowed in WILDCARDS.items():
            expression = expression.replace(rf"\{{{name}\}}", f"(?:{allowed})")
        return re.fullmatch(expression, path)

    assert [other.rule for other in FILES.values() if match(other)] == [file.rule]


@pytest.mark.parametrize(
    ("rule", "path", "log", "benchmark"),
    [
        ("images", "r/images/coco.parquet", "images/coco", "images/coco"),
        (
            "eigenvectors",
            "r/eigenvectors/coco/votecut/dino_s8/7.zarr.zip",
            "eigenvectors/coco/votecut/dino_s8/7",
            "eigenvectors/coco/votecut/dino_s8/7",
        ),
        (
            "detector",
            "r/detectors/a_round0/model_final.pth",
            "detectors/a_round0",
            "detector/a_round0",
        ),
        ("metrics", "r/coco_metrics.json", "metrics/coco", "metrics/coco"),
        ("report", "r/report.html", "report", "report/report"),
        ("splits", "r/splits/coco/10.json", "splits/coco", "splits/coco"),
        (
            "fine_tuning",
            "r/fine_tuning/detectors/a_round0_10percent/model_final.pth",
            "fine_tuning/detectors/a_round0_10percent",
            "fine_tuning/a_round0_10percent",
        ),
        (
            "fine_tuning_predictions",
            "r/fine_tuning/predictions/a_round0_10percent/coco.json",
            "fine_tuning/predictions/a_round0_10percent/coco",
            "fine_tuning_predictions/a_round0_10percent/coco",
        ),
        (
            "fine_tuning_metrics",
            "r/fine_tuning/coco_metrics.json",
            "fine_tuning/coco_metrics",
            "fine_tuning_metrics/coco_metrics",
        ),
        ("table", "r/table.md", "table", "table/table"),
        ("weights", "resources/weights/dino_s8.safetensors", "weights/dino_s8", "weights/dino_s8"),
        ("download", "resources/downloads/a.b.pth", "download/a.b.pth", "download/a.b.pth"),
    ],
)
def test_logs_and_benchmarks_are_named_after_the_job(rule, path, log, benchmark):
    file = FILES[rule]
    assert file.log_of(path, "r") == Path(f"r/logs/{log}.log")
    assert file.benchmark_of(path, "r") == Path(f"r/benchmarks/{benchmark}.tsv")


def test_wildcards_that_are_not_given_stay():
    assert EVALUATION.of(entry="votecut") == "<results>/evaluation/{dataset}/votecut.json"
    with pytest.raises(KeyError, match="dataset"):
        EVALUATION.under("results", entry="votecut")
    with pytest.raises(KeyError, match="method"):
        EVALUATION.of(method="votecut")


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "{dataset}"])
def test_a_name_that_cannot_be_read_back_is_refused(name):
    with pytest.raises(ValueError, match=re.escape(f"dataset {name!r}")):
        LISTING.of(dataset=name)


@pytest.mark.parametrize("path", ["coco.parquet", "r/images/coco.json", "r/images/a.b.parquet"])
def test_a_path_of_another_kind_is_refused(path):
    with pytest.raises(ValueError, match=re.escape(path)):
        LISTING.names(path)
