"""Plans of a fresh clone without data."""

import re
import subprocess

import pytest

pytestmark = pytest.mark.workflow


def jobs(output):
    """Return the table of jobs at the end of a dry-run."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}


def test_lint(workplace):
    assert "Congratulations" in workplace.snakemake("--lint")


WHOLE = {
    "images": 3,
    "weights": 7,
    "eigenvectors": 320 * 6,
    "pseudo_masks": 320,
    "annotations": 1,
    "detector": 2,
    "predictions": 3,
    "self_training": 1,
    "evaluation": 2,
    "metrics": 1,
}
ALL = {"table": 1, "model_card": 2, "report": 1, "all": 1}


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (["-n"], ALL),
        (["-n", "results/coco_val_metrics.json"], {}),
        (["--profile", "profiles/slurm", "-n", "all"], ALL),
    ],
)
def test_the_plan_of_the_default_config(workplace, arguments, more):
    planned = jobs(workplace.snakemake(*arguments))
    expected = WHOLE | more
    assert planned == expected | {"total": sum(expected.values())}


def test_without_scores_every_detector_is_trained_and_shows_what_it_finds(workplace):
    settings = workplace.configure(evaluate=[], evaluation={"pseudo_masks": []})
    planned = jobs(workplace.snakemake("-n", "all", *settings))
    assert (planned["detector"], planned["predictions"], planned["report"]) == (2, 2, 1)
    assert not {"evaluation", "metrics", "table", "model_card"} & planned.keys()


def test_pseudo_masks_alone_are_scored_without_training(workplace):
    only = {"evaluate": [], "evaluation": {"pseudo_masks": ["demo_val"]}}
    settings = workplace.configure(**only)
    planned = jobs(workplace.snakemake("-n", "results/demo/demo_val_metrics.json", *settings))
    assert planned.keys() == {
        *("images", "eigenvectors", "pseudo_masks", "annotations", "evaluation", "metrics", "total")
    }
    planned = jobs(workplace.snakemake("-n", "all", *settings))
    assert (planned["metrics"], planned["evaluation"], planned["detector"]) == (1, 1, 2)
    # A dataset that the config does not score is asked for: by the detectors.
    settings = workplace.configure(evaluate=[], evaluation={"pseudo_masks": []})
    planned = jobs(workplace.snakemake("-n", "results/demo/demo_val_metrics.json", *settings))
    assert (planned["evaluation"], planned["detector"]) == (2, 2)


def test_started_in_another_folder_it_says_where_to_start(workplace):
    (workplace.folder / "elsewhere").mkdir()
    command = workplace.command("-n", "--snakefile", "../workflow/Snakefile")
    command["cwd"] = workplace.folder / "elsewhere"
    result = subprocess.run(**command)
    assert result.returncode == 1
    assert re.search(r"config/datasets\.yaml: no such file in .*elsewhere; start", result.stdout)
    (workplace.folder / "config/config.yaml").write_text("# nothing\n")
    assert "config/config.yaml: has no settings" in workplace.snakemake("-n", status=1)


def test_the_plan_of_cutler_and_of_both_systems(workplace):
    cutler = {
        "images": 2,  # self-training is on ImageNet: no COCO train
        "weights": 2,
        "eigenvectors": 320,
        "pseudo_masks": 320,
        "annotations": 1,
        "detector": 4,
        "predictions": 3 + 4,
        "self_training": 3,
        "evaluation": 4,
        "metrics": 1,
        **ALL,
        "model_card": 4,
    }
    planned = jobs(workplace.snakemake("-n", "--config", "recipe=cutler"))
    assert planned == cutler | {"total": sum(cutler.values())}
    planned = jobs(workplace.snakemake("-n", "--config", "recipe=[cuvler, cutler]"))
    shared = {"images": 3, "weights": 7, "metrics": 1, **ALL, "model_card": 6}
    both = {rule: WHOLE.get(rule, 0) + count for rule, count in cutler.items()} | shared
    assert planned == both | {"total": sum(both.values())}


def test_running_without_data_names_key_path_and_fix(workplace):
    output = workplace.snakemake("results/coco_val_metrics.json", status=1)
    names = r"imagenet_train|coco_train|coco_val"
    found = re.search(rf"datasets\.({names})\.images: there is no folder datasets/\S+", output)
    assert found, output
    assert f"set datasets.{found[1]} or datasets_root in your config" in output
    assert "rule weights" not in output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trian=x", r"trian: unknown key.*did you mean train\?"),
        ("train=nowhere", r"train: 'nowhere' is not known; known: clipart, .*coco_train"),
        ("pseudo_masks={votecut: {backbones: [s7]}}", r"votecut\.backbones: 's7' is not known"),
        (
            "recipes={cuvler: {detector_config: nothing}}",
            r"detector_config: 'nothing' is not known",
        ),
    ],
)
def test_wrong_settings_stop_before_any_job(workplace, setting, message):
    output = workplace.snakemake("-n", "--config", setting, status=1)
    assert re.search(message, output), output
    assert "Building DAG" not in output
