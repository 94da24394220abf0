"""Fine-tuning: its plan, and a run on a few scenes."""

import json
import re

import pytest

pytestmark = pytest.mark.workflow

TARGET = "results/demo/fine_tuning/demo_val_metrics.json"


def jobs(output):
    """Return the table of jobs at the end of a dry-run."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}


# The default config, on the demo's few shards.
WHOLE = {
    "fine_tuning": {
        "percents": [1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100],
        "detector_config": "semi_supervised_PERCENT",
    }
}


def test_every_percentage_starts_from_the_last_detector_of_each_recipe(workplace):
    settings = workplace.configure(**WHOLE, recipe=["cuvler", "cutler"])
    output = workplace.snakemake("-n", "-p", TARGET, *settings)
    planned = jobs(output)
    assert planned["splits"] == planned["fine_tuning_metrics"] == 1
    for rule in ("fine_tuning", "fine_tuning_predictions", "fine_tuning_evaluation"):
        assert planned[rule] == 2 * 11
    commands = re.findall(
        r"--detector-config (semi_supervised_\d+) --weights (\S+) .*--output (\S+)", output
    )
    configs = {f"semi_supervised_{percent}" for percent in WHOLE["fine_tuning"]["percents"]}
    assert {config for config, _, _ in commands} == configs
    assert {weights for _, weights, _ in commands} == {
        "results/demo/detectors/cuvler_round1/model_final.pth",
        "results/demo/detectors/cutler_round2/model_final.pth",
    }
    assert len({folder for _, _, folder in commands}) == 2 * 11
    # They are evaluated during training, the class-agnostic detectors are not.
    scored = " --evaluate demo/val/annotations.json demo/val/images "
    assert output.count("cuvler detector ") == 2 * 11 + 2 + 3
    assert output.count(scored) == 2 * 11


def test_it_is_part_of_all_where_it_is_configured(workplace):
    planned = jobs(workplace.snakemake("-n", "all", *workplace.configure()))
    assert "all" in planned
    assert not [rule for rule in planned if "fine_tuning" in rule]
    settings = workplace.configure(fine_tuning={"evaluate": ["demo_val"], "percents": [5]})
    planned = jobs(workplace.snakemake("-n", "all", *settings))
    assert {rule: planned[rule] for rule in planned if "fine_tuning" in rule} == {
        "fine_tuning": 1,
        "fine_tuning_predictions": 1,
        "fine_tuning_evaluation": 1,
        "fine_tuning_metrics": 1,
        "fine_tuning_model_card": 1,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"detector_config": "semi_supervised_PERCENT", "percents": [3]},
            r"fine_tuning\.detector_config: 'semi_supervised_3' is not known",
        ),
        ({"percents": [0]}, r"fine_tuning\.percents\.0: "),
        ({"dataset": "nowhere"}, r"fine_tuning\.dataset: 'nowhere' is not known"),
        ({"validation": "nowhere"}, r"fine_tuning\.validation: 'nowhere' is not known"),
        ({"validation": "kitti"}, r"kitti\.ground_truth: .*one COCO json"),
        ({"dataset": "imagenet_train"}, r"imagenet_train\.ground_truth: .*one COCO json"),
    ],
)
def test_wrong_settings_stop_before_any_job(workplace, settings, message):
    flags = workplace.configure(fine_tuning=settings)
    output = workplace.snakemake("-n", TARGET, *flags, status=1)
    assert re.search(message, output), output


def test_detectors_can_be_scored_while_they_train(workplace):
    settings = workplace.configure(detector={"validation": "voc07"}, evaluate=[])
    output = workplace.snakemake("-n", "-p", "results/demo/report.html", *settings)
    # Ground truth that is converted from official files is an input.
    made = "results/demo/ground_truth/voc07.json"
    assert jobs(output)["ground_truth"] == 1
    assert output.count(f" --evaluate {made} ") == jobs(output)["detector"] == 2


def test_ground_truth_that_is_missing_is_found_before_any_training(workplace):
    settings = workplace.configure(fine_tuning={"validation": "coco_val"})
    inputs = re.search(
        r"^rule fine_tuning:\n +input: (.+)", workplace.snakemake("-n", TARGET, *settings), re.M
    )
    assert "results/demo/images/coco_val.parquet" in inputs[1].split(", ")


@pytest.mark.slow
def test_from_scenes_to_the_ap_of_each_class(workplace, tiny):
    opts = ["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2]
    fine_tuning = {"percents": [40, 100], "opts": opts}
    settings = workplace.configure(**tiny, fine_tuning=fine_tuning)
    workplace.snakemake(TARGET, *settings)
    results = workplace.folder / "results/demo"
    splits = [json.loads((results / f"splits/demo_train/{p}.json").read_text()) for p in (40, 100)]
    assert [len(split["images"]) for split in splits] == [3, 9]
    metrics = json.loads((workplace.folder / TARGET).read_text())
    assert list(metrics) == ["cuvler_round1_40percent", "cuvler_round1_100percent"]
    names = {category["name"] for category in splits[0]["categories"]}
    assert len(names) > 3
    for entry in metrics.values():
        for iou_type in ("bbox", "segm"):
            assert {f"AP-{name}" for name in names} < set(entry[iou_type])
            assert 0 <= entry[iou_type]["AP50"] <= 100
    folder = results / "fine_tuning/detectors/cuvler_round1_40percent"
    assert f"NUM_CLASSES: {len(names)}" in (folder / "config.yaml").read_text()
    scores = json.loads((folder / "metrics.json").read_text().splitlines()[-1])
    assert scores["bbox/AP"] == metrics["cuvler_round1_40percent"]["bbox"]["AP"]
    assert "Nothing to be done" in workplace.snakemake(TARGET, *settings)
