"""Every command of README and docs/ is executed: planned by Snakemake, or run on a few pictures.

A command that is not listed below fails the test: say there how it is exercised.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from .conftest import PAGES, REPOSITORY, blocks

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# Without a network ViTs cannot be had, and what needs them says so and does without.
ENVIRONMENT = os.environ | {"PATH": PATH, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Plan:
    """Executed as it stands, with ``-n``; Snakemake must plan the jobs of these rules."""

    rules: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Run:
    """Executed on a few pictures, with words replaced (large models by small ones)."""

    makes: str
    instead: dict[str, str] = field(default_factory=dict)
    before: str = ""


@dataclass(frozen=True)
class Make:
    """make says what it would do; the recipe's own commands are tested elsewhere."""

    says: str


@dataclass(frozen=True)
class Elsewhere:
    """Not executed here, as it needs a program that is not there; a test covers what it can."""

    test: str


VOTECUT = {"images", "weights", "eigenvectors", "pseudo_masks", "annotations"}
DETECTOR = VOTECUT | {"detector"}
SCORES = DETECTOR | {"predictions", "self_training", "evaluation", "metrics"}
TINY = "--num-gpus 0 --workers 0"
SMALL = " SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2"


def train(detector_config, tiny="demo"):
    """A training of two iterations of a small detector."""
    return {
        f"--detector-config {detector_config}": f"{TINY} --detector-config {tiny}",
        "--num-gpus 8 ": "",
        "--output": f"{SMALL} --output",
        "cutler_cascade_final.pth": "output/model_final.pth",
        "model_cuvler_zero_shot.pth": "output/model_final.pth",
    }


PREDICT = {
    "--listing": "--num-gpus 0 --workers 0 --listing",
    "cutler_cascade_final.pth": "output",
    "model_cuvler_zero_shot.pth": "output",
}
WEIGHTS_FREE = 'backbones=["pixels_p16", "pixels_p8"]'
# A detector of two iterations is sure of nothing.
UNSURE = {
    "--score-threshold 0.7": "--score-threshold 0",
    "--score-threshold 0.2": "--score-threshold 0",
}
PREDICTED = (
    f"cuvler predictions --detector output {TINY} --output predictions.json"
    " --listing results/images/%s.parquet --image-root %s"
)
PREDICTED_TRAIN = PREDICTED % ("coco_train", "images")
PREDICTED_VAL = PREDICTED % ("coco_val", "datasets/coco/val2017")


def tuning_pictures():
    """The commands of the pictures of docs/tuning.md, on a picture that is there."""
    words = runpy.run_path(str(REPOSITORY / "docs/tuning.py"))["pictures"]().values()
    return {
        " ".join(["cuvler", *each]): Run("tuned/photo.tune.png", {each[1]: "photo.jpg"})
        for each in words
    }


EXERCISED = {
    "make demo": Make("snakemake all --configfile config/laptop.yaml config/demo.yaml"),
    "make test": Make("pytest"),
    "make gpu-test": Make("pytest -m gpu"),
    "make gpu-benchmark": Make("python benchmarks/eigenvectors.py --backbones all"),
    "cuvler datasets": Run(""),
    "cuvler datasets --configfile mine.yaml": Run(""),
    "cuvler download": Run(""),
    "cuvler plan": Run(""),
    "cuvler status": Run(""),
    "cuvler status all --configfile mine.yaml": Run(""),
    "cuvler discover photo.jpg": Run(
        "discovered/photo.masks.png", {"photo.jpg": "photo.jpg --backbone pixels_p16"}
    ),
    "cuvler discover photo.jpg --backbone pixels_p16 --backbone pixels_p8": Run(
        "discovered/photo.masks.png"
    ),
    "cuvler tune photo.jpg": Run(
        "tuned/photo.tune.png", {"photo.jpg": "photo.jpg --backbone pixels_p16 --size 240"}
    ),
    "cuvler tune photo.jpg --backbone pixels_p16": Run(
        "tuned/tune.html", {"pixels_p16": "pixels_p16 --size 240"}
    ),
    "cuvler tune images --ground-truth annotations.json --backbone dino_s16"
    " --backbone dinov2_s14": Run(
        "tuned/tuned.yaml",
        {
            "dino_s16": "pixels_p16 --size 240 --tau 0.15",
            "dinov2_s14": "pixels_p14 --method votecut",
        },
    ),
    **tuning_pictures(),
    "cuvler predict photo.jpg --detector results/detectors/cuvler_round1": Run(
        "predicted/photo.masks.png"
    ),
    "cuvler discover photo.jpg --backbone dino_s16 --output found": Run(
        "found/photo.masks.png", {"dino_s16": "pixels_p16"}
    ),
    "cuvler discover photo.jpg --method maskcut --n 3 --tau 0.15 --backbone dino_b8"
    " --output found": Run("found/photo.json", {"dino_b8": "pixels_p8"}),
    "cuvler detector --annotations annotations.json --image-root images"
    " --detector-config votecut_cad --output my_detector": Run(
        "my_detector/model_final.pth", train("votecut_cad")
    ),
    "cuvler predict photo.jpg --detector my_detector --output found": Run(
        "found/predictions.json", {"my_detector": "output"}
    ),
    "cuvler predict photo.jpg --detector output --output found": Run("found/photo.masks.png"),
    "cuvler detector --annotations annotations.json --image-root images"
    " --detector-config cutler_cascade --num-gpus 8 --output output": Run(
        "trained/model_final.pth", train("cutler_cascade") | {"--output output": "--output trained"}
    ),
    "cuvler predictions --detector output --listing results/images/imagenet_train.parquet"
    " --image-root datasets/imagenet/train --output predictions.json": Run(
        "predictions.json", PREDICT
    ),
    "cuvler self-training --predictions predictions.json"
    " --listing results/images/imagenet_train.parquet --previous annotations.json"
    " --score-threshold 0.7 --detections-per-image 30 --output round1.json": Run(
        "round1.json", UNSURE, PREDICTED_TRAIN
    ),
    "cuvler detector --annotations round1.json --image-root datasets/imagenet/train"
    " --detector-config cutler_self_train --weights output/model_final.pth --output round1": Run(
        "round1/model_final.pth",
        train("cutler_self_train"),
        "rm -rf round1; cp annotations.json round1.json",
    ),
    "cuvler predictions --detector cutler_cascade_final.pth"
    " --listing results/images/coco_val.parquet --image-root datasets/coco/val2017"
    " --output predictions.json": Run("predictions.json", PREDICT),
    "cuvler evaluation --ground-truth datasets/coco/annotations/instances_val2017.json"
    " --results predictions.json --output metrics.json": Run("metrics.json", before=PREDICTED_VAL),
    "cuvler splits --ground-truth datasets/coco/annotations/instances_train2017.json --percent 10"
    " --output splits": Run("splits/10.json", {"--percent 10": "--percent 40 --percent 10"}),
    "cuvler detector --annotations splits/10.json --image-root datasets/coco/train2017"
    " --detector-config semi_supervised_10 --weights cutler_cascade_final.pth --num-gpus 8"
    " --output fine_tuned": Run(
        "fine_tuned/model_final.pth",
        train("semi_supervised_10", "demo_semi_supervised")
        | {"splits/10.json": "annotations.json"},
    ),
    "cuvler predictions --detector model_cuvler_zero_shot.pth"
    " --listing results/images/coco_train.parquet --image-root datasets/coco/train2017"
    " --output predictions.json": Run("predictions.json", PREDICT),
    "cuvler self-training --predictions predictions.json"
    " --listing results/images/coco_train.parquet --score-threshold 0.2 --output round1.json": Run(
        "round1.json", UNSURE, PREDICTED_TRAIN
    ),
    "cuvler detector --annotations round1.json --image-root datasets/coco/train2017"
    " --detector-config cad_self_train --weights model_cuvler_zero_shot.pth --num-gpus 8"
    " --output round1": Run(
        "round1/model_final.pth",
        train("cad_self_train"),
        "rm -rf round1; cp annotations.json round1.json",
    ),
    "cuvler evaluation --ground-truth truth.json --results annotations.json"
    " --output metrics.json": Run(
        "metrics.json",
        {
            "truth.json": "demo/val/annotations.json",
            "--results annotations.json": "--results scored.json",
        },
        "cp results/demo/annotations/demo_val/votecut.json scored.json",
    ),
    "cuvler view annotations.json --image-root images --ground-truth truth.json": Run(
        "view.html", {"truth.json": "annotations.json"}
    ),
    "cuvler view results/annotations/my_photos/votecut.json --image-root /data/photos": Run(
        "view.html",
        {"my_photos": "demo_val", "results/": "results/demo/", "/data/photos": "demo/val/images"},
    ),
    "cuvler export annotations.json --format coco-polygons --output polygons.json": Run(
        "polygons.json"
    ),
    "cuvler export predictions.json --listing results/images/coco_val.parquet"
    " --format label-studio --score-threshold 0.5 --detections-per-image 20"
    " --output tasks.json": Run(
        "tasks.json", {"--score-threshold 0.5": "--score-threshold 0"}, PREDICTED_VAL
    ),
    "apptainer build --fakeroot cuvler.sif container/cuvler.def": Elsewhere(
        "tests/workflow/test_envs.py"
    ),
    "snakemake --profile profiles/slurm --software-deployment-method apptainer"
    ' --apptainer-args "--nv --bind /data" all': Elsewhere("tests/workflow/test_envs.py"),
    "snakemake -n": Plan(SCORES | {"report", "all"}),
    "snakemake --profile profiles/slurm all": Plan(SCORES | {"report", "all"}),
    "snakemake --profile profiles/slurm -n all": Plan(SCORES | {"report", "all"}),
    "snakemake results/coco_val_metrics.json": Plan(SCORES),
    "snakemake results/coco_val_metrics.json --config recipe=cutler": Plan(SCORES),
    "snakemake results/coco_val_metrics.json --config recipe=cutler"
    " 'recipes={cutler: {detector_config: cutler_mask_rcnn}}'": Plan(SCORES),
    "snakemake results/coco_val_metrics.json --config recipe=cutler"
    " 'detector={opts: [MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH, released]}'": Plan(SCORES),
    "snakemake all --config 'recipe=[cuvler, cutler]'": Plan(SCORES | {"report", "all"}),
    "snakemake results/table.md --config recipe=cutler 'evaluate=[coco_val, coco20k, voc07,"
    " lvis_val, uvo_sparse_val, clipart, comic, watercolor, kitti, objects365_val,"
    " openimages_val]'": Plan(SCORES | {"table", "ground_truth"}),
    "snakemake results/reproduction.md": Plan({"reproduction"}),
    "snakemake results/fine_tuning/coco_val_metrics.json": Plan(
        DETECTOR | {"splits", "fine_tuning"}
    ),
    "snakemake results/fine_tuning/coco_val_metrics.json --config recipe=cutler": Plan(
        DETECTOR | {"splits", "fine_tuning"}
    ),
    "snakemake all --configfile small.yaml": Plan((SCORES - {"self_training"}) | {"report", "all"}),
    "snakemake all --config 'detector={opts: [SOLVER.MAX_ITER, 40000, SOLVER.IMS_PER_BATCH,"
    " 8]}'": Plan(SCORES | {"report", "all"}),
    "snakemake results/evaluation/coco_val/votecut.json"
    " --config 'evaluation={pseudo_masks: [coco_val]}'": Plan(VOTECUT | {"evaluation"}),
    "snakemake results/evaluation/imagenet_val/votecut.json"
    " --config 'evaluation={pseudo_masks: [imagenet_val]}'": Plan(VOTECUT | {"evaluation"}),
    "snakemake results/evaluation/my_photos/votecut.json --configfile mine.yaml": Plan(
        VOTECUT | {"evaluation"}
    ),
    "snakemake results/annotations/my_photos/votecut.json --configfile mine.yaml": Plan(VOTECUT),
    "snakemake all --configfile mine.yaml": Plan(DETECTOR | {"predictions", "report", "all"}),
    "snakemake all --configfile mine.yaml config/laptop.yaml": Plan(
        (DETECTOR - {"weights"}) | {"predictions", "self_training", "report", "all"}
    ),
    "snakemake results/annotations/imagenet_train/maskcut.json --config recipe=cutler": Plan(
        VOTECUT
    ),
    "snakemake results/annotations/imagenet_train/votecut.json": Plan(VOTECUT),
    "snakemake results/eigenvectors/imagenet_train/votecut/dino_s8/0.zarr.zip": Plan(
        {"images", "weights", "eigenvectors"}
    ),
    "snakemake results/detectors/cutler_round0/model_final.pth --config recipe=cutler"
    " 'datasets_root=$DETECTRON2_DATASETS'": Plan(DETECTOR),
    "snakemake --profile profiles/slurm results/detectors/cutler_round0/model_final.pth"
    " --config recipe=cutler": Plan(DETECTOR),
    "snakemake results/detectors/cutler_round1/model_final.pth --config recipe=cutler": Plan(
        DETECTOR | {"predictions", "self_training"}
    ),
    "snakemake results/detectors/cuvler_round0/model_final.pth": Plan(DETECTOR),
    "snakemake results/detectors/cuvler_round1/model_final.pth": Plan(
        DETECTOR | {"predictions", "self_training"}
    ),
}


def commands():
    """The commands of all pages, without their comments, in order, each once."""
    text = "".join(block for page in PAGES for block in blocks(page, "sh"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return list(
        dict.fromkeys(re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip())
    )


def test_every_command_is_listed_and_every_listed_one_is_there():
    found = set(commands())
    assert found - EXERCISED.keys() == set(), "say in EXERCISED how these are exercised"
    assert EXERCISED.keys() - found == set(), "these are not on any page any more"


def execute(command, folder):
    """Run in a shell as a reader does; return what it printed."""
    result = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory, scenes):
    """A clone with a few pictures where the pages have their data, and what was made of them."""
    folder = tmp_path_factory.mktemp("reader")
    for part in ("workflow", "config", "profiles"):
        shutil.copytree(REPOSITORY / part, folder / part)
    # Which rules are planned does not depend on it, and a plan of 2,000 jobs takes ten seconds.
    known = folder / "config/datasets.yaml"
    known.write_text(re.sub(r"shards: \d+", "shards: 1", known.read_text()))
    shutil.copytree(scenes, folder / "demo")
    for split, names in {
        "train": ("datasets/imagenet/train", "datasets/coco/train2017", "images"),
        "val": ("datasets/coco/val2017",),
    }.items():
        for name in names:
            shutil.copytree(scenes / split / "images", folder / name)
    (folder / "datasets/coco/annotations").mkdir()
    for source, name in (
        ("val", "datasets/coco/annotations/instances_val2017.json"),
        ("train", "datasets/coco/annotations/instances_train2017.json"),
        ("train", "annotations.json"),
    ):
        shutil.copy(scenes / source / "annotations.json", folder / name)
    shutil.copy(next((scenes / "val/images").glob("*.jpg")), folder / "photo.jpg")
    mine = {
        "datasets": {"my_photos": {"images": "images", "ground_truth": "annotations.json"}},
        "datasets_root": ".",
        "train": "my_photos",
        "evaluate": [],
        "recipes": {"cuvler": {"self_training": {"dataset": ""}}},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    small = blocks(REPOSITORY / "docs/reproducing.md", "yaml")[0]
    (folder / "small.yaml").write_text(small)
    for command in (
        "cuvler images --dataset a --image-root images --ground-truth annotations.json"
        " --ids ground_truth --output results/images/imagenet_train.parquet",
        "cp results/images/imagenet_train.parquet results/images/coco_train.parquet",
        "cuvler images --dataset b --image-root datasets/coco/val2017 --ids ground_truth"
        " --ground-truth datasets/coco/annotations/instances_val2017.json"
        " --output results/images/coco_val.parquet",
        "cuvler detector --annotations annotations.json --image-root images --detector-config demo"
        f" {TINY} --output output {SMALL}",
        "cuvler predictions --detector output --listing results/images/coco_val.parquet"
        " --image-root datasets/coco/val2017 --num-gpus 0 --workers 0 --output predictions.json",
        "cuvler eigenvectors --listing results/images/coco_val.parquet --backbone pixels_p8"
        " --image-root datasets/coco/val2017 --shard 0"
        " --output results/demo/eigenvectors/demo_val/votecut/pixels_p8/0.zarr.zip",
        "cuvler pseudo-masks --listing results/images/coco_val.parquet --shard 0"
        " --image-root datasets/coco/val2017 --output masks/0.json"
        " --eigenvectors results/demo/eigenvectors/demo_val/votecut/pixels_p8/0.zarr.zip",
        "cuvler annotations --listing results/images/coco_val.parquet masks"
        " --output results/demo/annotations/demo_val/votecut.json",
    ):
        execute(command, folder)
    for detector in ("results/demo/detectors/cuvler_round1", "results/detectors/cuvler_round1"):
        shutil.copytree(folder / "output", folder / detector)
    (folder / "results/demo/predictions/cuvler_round1").mkdir(parents=True)
    shutil.copy(
        folder / "predictions.json", folder / "results/demo/predictions/cuvler_round1/demo_val.json"
    )
    return folder


def exercised(kind):
    listed = [pair for pair in EXERCISED.items() if isinstance(pair[1], kind)]
    return pytest.mark.parametrize(("command", "how"), listed, ids=[name for name, _ in listed])


@exercised(Run)
def test_commands_run_on_a_few_pictures(command, how, place):
    if how.before:
        execute(how.before, place)
    for words, others in how.instead.items():
        command = command.replace(words, others)
    (place / (how.makes or "nothing")).unlink(missing_ok=True)
    execute(command, place)
    assert (place / how.makes).exists()


@exercised(Plan)
def test_commands_can_be_planned(command, how, place, tmp_path):
    for part in ("workflow", "config", "profiles"):
        shutil.copytree(REPOSITORY / part, tmp_path / part)
    for name in ("mine.yaml", "small.yaml"):
        shutil.copy(place / name, tmp_path)
    dry = command if " -n" in command else command.replace("snakemake", "snakemake -n", 1)
    printed = execute(dry, tmp_path)
    planned = set(re.findall(r"^(\w+) +\d+$", printed, re.MULTILINE))
    assert how.rules <= planned, printed[-2000:]


@exercised(Make)
def test_make_would_do_what_it_should(command, how):
    assert how.says in execute(f"{command} --dry-run", REPOSITORY)


@exercised(Elsewhere)
def test_commands_of_other_programs_have_a_test(command, how):
    assert (REPOSITORY / how.test).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs_from_top_to_bottom(page, place, monkeypatch):
    monkeypatch.chdir(place)
    names = {}
    for block in blocks(page, "python"):
        # The weights of the ViTs are not fetched here.
        block = block.replace("discover(image)", f"discover(image, {WEIGHTS_FREE})")
        exec(compile(block, page.name, "exec"), names)


def test_each_picture_of_tuning_has_a_command():
    names = runpy.run_path(str(REPOSITORY / "docs/tuning.py"))["pictures"]().keys()
    assert set(names) == {path.name for path in (REPOSITORY / "docs/images").glob("tuning-*.jpg")}
    assert len(names) == 6


def test_the_picture_of_results_is_drawn_from_a_runs_files(place):
    script = runpy.run_path(str(REPOSITORY / "docs/results.py"))
    picture = script["results_picture"](place / "results/demo", place / "demo/val")
    assert picture.width > 1200
    left = np.asarray(picture)[:, : script["SIZE"][0]]
    assert left.std() > 20  # photographs, not a blank sheet
