"""Ground truth is converted when it is needed, and evaluation uses it."""

import json
import re

import pytest
from PIL import Image

pytestmark = pytest.mark.workflow


@pytest.fixture
def data(workplace):
    """KITTI with two images and labels, and a COCO json with objects of a second file."""
    root = workplace.folder / "it's data"
    images, labels = (root / "kitti/training" / name for name in ("image_2", "label_2"))
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for name in ("000003", "000007"):
        Image.new("RGB", (100, 50)).save(images / f"{name}.png")
        (labels / f"{name}.txt").write_text("Car 0 0 0 10 10 40 30 1 1 1 0 0 0 0\n")
    return root


def test_it_is_made_of_official_files_and_again_when_they_change(workplace, data):
    own = workplace.configure(datasets_root=str(data))
    workplace.snakemake("results/demo/images/kitti.parquet", *own)
    made = json.loads((workplace.folder / "results/demo/ground_truth/kitti.json").read_text())
    assert [image["id"] for image in made["images"]] == [3, 7]
    assert {annotation["category_id"] for annotation in made["annotations"]} == {1}
    assert "ground_truth" not in workplace.snakemake(
        "-n", "results/demo/images/kitti.parquet", *own
    )
    extra = {"images": made["images"][:1], "annotations": [dict(made["annotations"][0])]}
    extra["annotations"][0]["bbox"] = [50, 5, 20, 20]
    (data / "more.json").write_text(json.dumps(extra))
    datasets = {"kitti": {"extra_ground_truth": ["more.json"]}}
    own = workplace.configure(datasets_root=str(data), datasets=datasets)
    workplace.snakemake("results/demo/ground_truth/kitti.json", *own)
    made = json.loads((workplace.folder / "results/demo/ground_truth/kitti.json").read_text())
    assert [annotation["bbox"] for annotation in made["annotations"]][2:] == [[50, 5, 20, 20]]


def test_every_benchmark_can_be_planned_without_data(workplace):
    output = workplace.snakemake("-n", "--config", "evaluate=[lvis_val, voc07, coco_val]")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
    assert (jobs["ground_truth"], jobs["evaluation"]) == ("2", "6")
    targets = ["results/lvis_val_metrics.json", "results/voc07_metrics.json"]
    commands = re.sub(r"\s+", " ", workplace.snakemake("-n", "--printshellcmds", *targets))
    assert "--max-failed 0.01 --detections-per-image 300" in commands
    # LVIS is scored as in the papers; its own limit of detections is a setting.
    assert "--max-detections" not in commands
    assert re.search(r"ground_truth/voc07\.json --results \S+ --iou-type bbox", commands)
    own = workplace.folder / "own.yaml"
    own.write_text("datasets: {lvis_val: {max_detections: 300}}")
    commands = workplace.snakemake(
        "-n", "--printshellcmds", targets[0], "--configfile", "config/config.yaml", own
    )
    commands = re.sub(r"\s+", " ", commands)
    assert re.search(r"ground_truth/lvis_val\.json --results \S+ --max-detections 300", commands)


def test_missing_files_are_named_with_key_path_and_fix(workplace):
    output = workplace.snakemake("results/ground_truth/voc07.json", status=1)
    assert "datasets.voc07: there is no datasets/VOC2007/JPEGImages" in output
    assert "`cuvler datasets voc07`" in re.sub(r"\s+", " ", output)


def test_annotations_that_are_used_as_they_are_are_not_made(workplace):
    output = workplace.snakemake("-n", "results/ground_truth/coco_val.json", status=1)
    assert "datasets.coco_val: its ground truth" in output


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("imagenet_train_metrics.json", r"datasets\.imagenet_train\.ground_truth: needed to score"),
        ("coco_vall_metrics.json", r"datasets\.coco_vall: not in the config; known: .*coco_val"),
        ("annotations/coco_val/votcut.json", r"pseudo_masks\.votcut: .* known: votecut, maskcut"),
        ("predictions/cuvlr_round0/coco_val.json", r"recipes\.cuvlr: .* known: cuvler, cutler"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_runs(workplace, target, message):
    assert re.search(message, workplace.snakemake("-n", f"results/{target}", status=1))
