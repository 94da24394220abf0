"""Published and measured scores: the data, the outcomes and the table."""

import json
from pathlib import Path

import pytest
import yaml

from cuvler.config import Settings
from cuvler.detector.config import DETECTOR_CONFIGS
from cuvler.download import published_files
from cuvler.errors import DataError
from cuvler.evaluation.published_scores import published
from cuvler.reproduction import (
    Entry,
    Figure,
    entries,
    figures,
    missing_datasets,
    next_attempt,
    run_step,
    skip_reason,
    to_markdown,
    unknown_files,
)

DATASETS = yaml.safe_load(
    (Path(__file__).parents[2] / "config/datasets.yaml").read_text(encoding="utf-8")
)["datasets"]


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.name)
def test_entries_refer_to_existing_files_and_datasets(entry):
    assert set(entry.datasets) <= set(DATASETS)
    assert (
        entry.detector_config is None
        or (DETECTOR_CONFIGS / f"{entry.detector_config}.yaml").is_file()
    )
    names = {row.name for iou_type in ("bbox", "segm") for row in published(iou_type)}
    assert entry.published is None or entry.published in names
    assert (entry.per_category, entry.detector_config is None) != (True, True)


def test_published_figures_are_of_datasets_that_are_scored():
    scored = {(entry.published, name) for entry in entries().values() for name in entry.datasets}
    figures = {
        (row.name, name)
        for iou_type in ("bbox", "segm")
        for row in published(iou_type)
        for name in row.scores
    }
    assert figures <= scored


def test_every_published_checkpoint_and_json_is_scored():
    initial = {"dino_RN50_pretrain_d2_format.pkl"}
    files = {name for name in published_files() if name.endswith((".pth", ".pkl", ".json"))}
    assert files - initial <= {entry.file for entry in entries().values()}


ENTRY = Entry("cutler", "CutLER", "a.pth", ("coco_val",), ("bbox", "segm"), "demo", "CutLER")


def test_measured_figures_are_compared_if_published():
    scores = {"bbox": {"AP": 12.3, "AP50": 21.85, "AR100": 30.0}, "segm": {"AP": 9.7}}
    found = {(f.iou_type, f.metric): f for f in figures(ENTRY, "coco_val", scores)}
    assert found["bbox", "AP50"].published == 21.9
    assert found["bbox", "AP50"].verdict == "within 0.1"
    assert found["bbox", "AR100"].verdict == "differs"
    assert found["bbox", "AR100"].difference == pytest.approx(-2.7)
    # Published, but not measured for lack of ground truth.
    assert (found["segm", "AP50"].measured, found["segm", "AP50"].verdict) == (None, "")
    alone = figures(ENTRY, "imagenet_val", {"bbox": scores["bbox"]})
    assert [(f.metric, f.measured, f.published) for f in alone] == [
        *(("AP", 12.3, None), ("AP50", 21.85, None), ("AR100", 30.0, None))
    ]


@pytest.mark.parametrize(
    ("measured", "verdict"), [(21.8, "within 0.1"), (22.0, "within 0.1"), (22.01, "differs")]
)
def test_the_tolerance_includes_its_bounds(measured, verdict):
    assert Figure(ENTRY, "coco_val", "bbox", "AP50", measured, 21.9).verdict == verdict


def test_the_page_has_every_entry_once():
    found = [Figure(ENTRY, "coco_val", "bbox", "AP50", 21.84, 21.9, "a paper")]
    skipped = [(ENTRY, "voc07", "a | b\nc"), (ENTRY, "kitti", "a | b\nc")]
    page = to_markdown(found, skipped=skipped, missing={"clipart": "gone"}, titles={"kitti": "K"})
    assert "| CutLER | coco_val | boxes | AP50 | 21.9 [^1] | 21.84 | -0.06 | within 0.1 |" in page
    assert "| CutLER | voc07, K | a \\| b c |" in page
    assert "| clipart | gone |" in page
    assert page.endswith("[^1]: a paper\n")


def test_missing_data_has_a_reason(tmp_path):
    image = tmp_path / "coco/val2017/1.jpg"
    labels = tmp_path / "coco/annotations/instances_val2017.json"
    for path in (image, labels):
        path.parent.mkdir(parents=True)
        path.touch()
    settings = Settings(
        datasets={name: DATASETS[name] for name in ("coco_val", "voc07", "imagenet_train")},
        datasets_root=str(tmp_path),
        download={"model_cuvler_zero_shot.pth": {"url": "gdrive:1"}},
    )
    missing = missing_datasets(settings)
    assert "coco_val" not in missing
    assert str(tmp_path / "VOC2007/Annotations") in missing["voc07"]
    assert missing["imagenet_train"].startswith("datasets.imagenet_train.ground_truth: ")
    assert missing["kitti"] == "datasets.kitti: not in the config"
    (tmp_path / "cutler_semi_1perc.pth").touch()
    unknown = unknown_files(settings, tmp_path)
    assert "set download.cutler_semi_2perc.pth" in unknown["cutler_2percent"]
    assert not {"cutler_cascade", "cuvler_zero_shot", "cutler_1percent"} & unknown.keys()


def fail():
    raise DataError("no such file")


def test_a_failure_is_an_outcome_and_skips_the_next_step(tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert run_step(fail, first) == "no such file"
    called = []
    assert run_step(lambda: called.append(1), second, after=first) == "no such file"
    assert not called
    assert json.loads(second.read_text()) == {"skipped": "no such file"}
    assert (skip_reason(first), skip_reason(second)) == ("no such file", "no such file")


def test_attempts_increase_only_after_failures(tmp_path):
    output = tmp_path / "output.json"
    assert next_attempt(output) == 0
    for attempt in (0, 1):
        run_step(fail, output, attempt=attempt)
        assert next_attempt(output) == attempt + 1
    run_step(lambda: output.write_text("[]"), output, attempt=2)
    assert (next_attempt(output), skip_reason(output)) == (2, None)
    assert output.read_text() == "[]"


def test_unexpected_errors_are_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_step(lambda: 1 / 0, tmp_path / "output.json")
