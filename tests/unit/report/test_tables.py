import pytest

from cuvler.errors import DataError
from cuvler.evaluation import METRICS
from cuvler.report.tables import (
    HEADLINE,
    RuleTime,
    metrics_tables,
    previous_round,
    rule_times,
    versions,
)


def entry(value, iou_types=("bbox", "segm")):
    return {t: dict.fromkeys(METRICS, value) for t in iou_types}


def test_changes_are_against_the_previous_round_and_the_best_is_marked():
    entries = {"votecut": entry(5.0), "a_round0": entry(10.0), "a_round1": entry(9.5)}
    entries["b_round1"] = entry(7.0)  # its round 0 was not scored
    masks, boxes = metrics_tables("mine", entries, HEADLINE)
    assert (masks.title, boxes.title) == ("Masks", "Boxes")
    assert list(masks.rows) == list(entries)
    changes = {name: cells["AP"].change for name, cells in masks.rows.items()}
    assert changes == {"votecut": None, "a_round0": None, "a_round1": -0.5, "b_round1": None}
    assert [name for name, cells in masks.rows.items() if cells["AP50"].best] == ["a_round0"]


def test_undefined_scores_and_datasets_of_boxes_only():
    tables = metrics_tables(
        "mine", {"a": entry(None, ["bbox"]), "b": entry(1.0, ["bbox"])}, HEADLINE
    )
    assert [table.title for table in tables] == ["Boxes"]
    assert tables[0].rows["a"]["AP"].value is None
    assert not tables[0].rows["a"]["AP"].best


def test_published_scores_stand_below_and_are_never_the_best():
    boxes = metrics_tables("coco_val", {"a": entry(5.0, ["bbox"]), "b": entry(4.0, ["bbox"])})[0]
    (name, cells), *_ = boxes.published.items()
    assert name == "CutLER, Wang et al."
    assert (cells["AP50"].value, cells["APs"].value, cells["AP50"].best) == (21.9, None, False)
    assert boxes.rows["a"]["AP50"].best
    assert "CVPR 2023" in boxes.sources[name]
    assert metrics_tables("mine", {"a": entry(5.0)})[0].published == {}


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("cuvler_round1", "cuvler_round0"),
        ("my_round2_round12", "my_round2_round11"),
        ("cuvler_round0", None),
        ("votecut", None),
    ],
)
def test_previous_round(name, before):
    assert previous_round(name) == before


def test_times_are_summed_by_rule_longest_first(inputs):
    detector, masks = rule_times(inputs.benchmarks, inputs.gpus)
    assert detector == RuleTime(
        "detector", 1, 3700.5, 3700.5, 5120.2, 7200.0, 8 * 3700.5, 3700.5 / 3763.0
    )
    assert masks == RuleTime("pseudo_masks", 2, 62.5, 62.1, 300.0, 61.0, 0.0, 62.5 / 3763.0)


def test_files_that_are_no_benchmarks_are_named(trial):
    trial.write("benchmarks/x/0.tsv", "a\tb\n1\t2\n")
    with pytest.raises(DataError, match=r"0\.tsv: not a Snakemake benchmark"):
        rule_times(trial.folder / "benchmarks", {})


def test_versions_leave_out_what_is_not_installed(monkeypatch):
    monkeypatch.setattr("cuvler.report.tables._PACKAGES", ("numpy", "no-such-package"))
    assert list(versions()) == ["Python", "numpy"]
