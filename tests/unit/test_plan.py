import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from cuvler.cli import cuvler
from cuvler.commands import plan as plan_command
from cuvler.config import check
from cuvler.eigenvectors.store import ShardEigenvectors, write_eigenvectors
from cuvler.errors import ConfigError
from cuvler.layout import FILES
from cuvler.listing import write_listing
from cuvler.plan import Planner, Training
from cuvler.rates import Rate, known_rates

CONFIG = Path(__file__).parents[2] / "config"
SHARDS = 4
SCHEDULE = Training(iterations=2_250, batch=16)


def jobs(backbones=("dino_s8",), method="votecut"):
    results = Path("results")
    found = [("images", results / "images/coco_val.parquet")]
    for shard in range(SHARDS):
        found += [
            ("eigenvectors", results / f"eigenvectors/coco_val/{method}/{name}/{shard}.zarr.zip")
            for name in backbones
        ]
        found.append(("pseudo_masks", results / f"pseudo_masks/coco_val/{method}/{shard}.json"))
    found.append(("annotations", results / f"annotations/coco_val/{method}.json"))
    found.append(("detector", results / "detectors/cuvler_round0/model_final.pth"))
    found.append(("predictions", results / "predictions/cuvler_round0/coco_val.json"))
    return found


def settings(**changes):
    config = {}
    for name in ("datasets.yaml", "config.yaml"):
        content = yaml.safe_load((CONFIG / name).read_text())
        config.update({k: v for k, v in content.items() if v or k not in config})
    return config | changes


def rows(config, planned, **rates):
    found = [path.parts[-3:-1] for rule, path in planned if rule == "eigenvectors"]
    votecut = list(dict.fromkeys(backbone for method, backbone in found if method == "votecut"))
    cut = [backbone for method, backbone in found if method == "maskcut"]
    config["pseudo_masks"]["votecut"] |= {"backbones": votecut} if votecut else {}
    config["pseudo_masks"]["maskcut"] |= {"backbone": cut[0]} if cut else {}
    given = {name.replace("__", "/"): Rate(value, "given") for name, value in rates.items()}
    planner = Planner(check(config), {"coco_val": 8000}, known_rates() | given, lambda _: SCHEDULE)
    return {row.stage: row for row in planner.rows(planned)}, planner


def test_every_job_is_in_one_row():
    found, _ = rows(settings(), jobs(("dino_s8", "pixels_p16")))
    assert {stage: row.jobs for stage, row in found.items()} == {
        "images": 1,
        "eigenvectors dino_s8": SHARDS,
        "eigenvectors pixels_p16": SHARDS,
        "pseudo_masks votecut": SHARDS,
        "annotations": 1,
        "detector": 1,
        "predictions": 1,
    }
    assert found["eigenvectors dino_s8"].images == pytest.approx(8000)


def test_a_job_with_several_files_is_one_job():
    results = Path("results")
    tables = [("table", results / f"table.{kind}") for kind in ("md", "csv")]
    splits = [("splits", results / f"splits/coco_train/{n}.json") for n in (1, 2, 5)]
    found, _ = rows(settings(), tables + splits)
    assert {stage: (row.jobs, row.files) for stage, row in found.items()} == {
        "table": (1, 3),
        "splits": (1, 4),
    }


def test_hours_follow_the_rates():
    rates = {"eigenvectors__dino_s8": 4, "pseudo_masks__votecut": 2, "detector": 10}
    found, planner = rows(settings(), jobs(), **rates, predictions=20)
    assert found["eigenvectors dino_s8"].gpu_hours == pytest.approx(8000 / 4 / 3600)
    assert found["pseudo_masks votecut"].cpu_hours == pytest.approx(8000 / 2 / 3600)
    assert found["detector"].gpu_hours == pytest.approx(1)
    assert found["predictions"].gpu_hours == pytest.approx(8000 / 20 / 3600)
    assert planner.used == {
        *(name.replace("__", "/") for name in rates),
        "predictions",
        "annotations",
    }


def test_arithmetic_stands_in_for_a_rate_of_a_vit():
    found, _ = rows(settings(), jobs(("dino_s16", "dino_s8", "dino_b8")), gpu_tflops__float16=1)
    hours = [found[f"eigenvectors {name}"].gpu_hours for name in ("dino_s16", "dino_s8", "dino_b8")]
    # ViT-S/16 at 224 pixels is known to take 4.6 billion multiply-adds; at 480 there are 4.6
    # times as many patches, and attention grows with their square.
    assert hours[0] * 3600 / 8000 == pytest.approx(0.053, rel=0.05)
    assert hours[0] * 4 < hours[1] < hours[0] * 16
    assert hours[1] * 2 < hours[2] < hours[1] * 4


def test_without_gpus_the_cores_work():
    config = settings()
    config["eigenvectors"]["device"] = "cpu"
    config["detector"]["num_gpus"] = config["predictions"]["num_gpus"] = 0
    found, planner = rows(config, jobs())
    assert all(row.gpu_hours == 0 for row in found.values())
    assert found["eigenvectors dino_s8"].cpu_hours > 0
    assert "core_tflops" in planner.used


def test_bytes_of_eigenvectors_are_those_of_their_arrays():
    found, _ = rows(settings(), jobs(("dino_s8", "dinov2_s14")))
    assert found["eigenvectors dino_s8"].size == pytest.approx(8000 * 4 * 60 * 60, rel=0.01)
    assert found["eigenvectors dinov2_s14"].size == pytest.approx(8000 * 4 * 34 * 34, rel=0.01)
    cuts, _ = rows(settings(), jobs(("dino_s8",), "maskcut"))
    assert cuts["eigenvectors dino_s8"].size == pytest.approx(8000 * 12 * 60 * 60, rel=0.01)


def test_the_arithmetic_of_a_backbone_of_the_users_own_is_asked_of_timm():
    config = settings()
    definition = {"timm": "vit_tiny_patch16_224", "feature": "key", "size": 480}
    config["eigenvectors"]["definitions"] = {"mine": definition}
    found, _ = rows(config, jobs(("mine", "dino_s16")))
    # Half the channels of a small ViT, and attention.
    share = found["eigenvectors mine"].gpu_hours / found["eigenvectors dino_s16"].gpu_hours
    assert 1 / 4 < share < 1 / 2
    found, _ = rows(config, jobs(("mine",)), eigenvectors__mine=8)
    assert found["eigenvectors mine"].gpu_hours == pytest.approx(1000 / 3600)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with the default settings, and a Snakemake whose plan is a few jobs."""
    (tmp_path / "config").symlink_to(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_command, "summary", lambda _: summary_of(jobs()))
    return tmp_path


def summary_of(planned):
    """Snakemake's detailed summary of pending (rule, output)."""
    lines = [f"{path}\t-\t{rule}\t-\t-\t-\tmissing\tupdate pending" for rule, path in planned]
    return "\n".join(["output_file\t...", *lines])


def run(*words):
    return CliRunner().invoke(cuvler, ["plan", *words])


def cell(output, stage, column):
    lines = output.splitlines()
    ends = {found[0]: found.end() for found in re.finditer(r"\S+( \S+)*", lines[0])}
    before = max((end for end in ends.values() if end < ends[column]), default=0)
    (line,) = [line for line in lines if line.startswith(stage)]
    return line[before : ends[column]].strip()


def test_known_sizes_and_the_recipes_iterations(clone):
    output = run().output
    assert cell(output, "eigenvectors dino_s8", "images") == "5,000"
    # VoteCut's CAD: 80,000 iterations of 16 images.
    assert cell(output, "detector", "images") == "1,280,000"
    assert cell(output, "all ", "jobs") == str(len(jobs()))
    assert "assumed, not measured" in output
    assert "\ntraining: 8 GPUs;" in output


def test_the_settings_of_each_backbone_are_shown(clone):
    own = "eigenvectors: {tau: 0.2, definitions: {dino_s8: {size: 320, eps: 0.001}}}\n"
    (clone / "own.yaml").write_text(own)
    output = run("--configfile", "own.yaml").output
    assert re.search(r"dino_s8 +key at 320 pixels, tau 0\.2, eps 0\.001\n", output)


def test_a_method_without_a_graph_has_no_tau(clone, monkeypatch):
    planned = jobs(("dino_b8",), "agglomerative")
    monkeypatch.setattr(plan_command, "summary", lambda _: summary_of(planned))
    assert re.search(r"dino_b8 +key at 480 pixels\n", run().output)


def test_a_layer_that_is_not_there_is_named_with_its_backbone():
    definitions = {"dino_s8": {"layer": 99}}
    with pytest.raises(ConfigError, match="'dino_s8': layer 99"):
        rows(settings(eigenvectors={"definitions": definitions}), jobs())


def test_several_nodes_take_the_same_gpu_hours(clone):
    (clone / "two.yaml").write_text("detector: {nodes: 2}\n")
    output = run("--configfile", "two.yaml").output
    assert "\ntraining: 2 nodes, each with 8 GPUs; GPU-hours are the sum" in output
    one = run().output
    assert cell(output, "detector", "GPU-hours") == cell(one, "detector", "GPU-hours") == "58.3"
    assert cell(output, "detector", "hours a job") == "3.6"
    assert cell(one, "detector", "hours a job") == "7.3"


def write_benchmark(output, rule, seconds, cpu):
    path = FILES[rule].benchmark_of(output, "results")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}\t0:00:01\t9\t{cpu}\n")


def test_finished_jobs_give_the_rates_of_the_others(clone, monkeypatch):
    done = {path for rule, path in jobs() if rule in ("detector", "predictions")}
    done |= {path for rule, path in jobs() if "1." in path.name}  # a shard, of 1,250 images
    for rule, path in jobs():
        if path in done:
            write_benchmark(path, rule, seconds=100, cpu=500)
    trained = clone / "results/detectors/cuvler_round0"
    trained.mkdir(parents=True)
    # Of the last part of a training that was resumed.
    (trained / "metrics.json").write_text('{"time": 0.5}\n{"time": 0.25}\n{"time": 0.25}\n')
    shard = ShardEigenvectors.empty(np.arange(2), 1, (60, 60))
    stored = clone / "results/eigenvectors/coco_val/votecut/dino_s8/1.zarr.zip"
    stored.parent.mkdir(parents=True)
    write_eigenvectors(stored, shard, {"device": "cuda"})
    plan = [(rule, path, path in done) for rule, path in jobs()]
    monkeypatch.setattr(plan_command, "read_plan", lambda _: plan)
    output = run("--images", "coco_val=5000", "--rate", "predictions=2").output
    shards = r"measured by 1 finished job of this run"
    assert re.search(rf"eigenvectors/dino_s8 +12.5  {shards}", output)
    assert re.search(rf"pseudo_masks/votecut +2.5  {shards}", output)
    assert re.search(rf"detector +8  {shards}", output)  # 16 images in 0.25 s on 8 GPUs
    assert re.search(r"predictions +2  given", output)
    assert re.search(r"annotations .*measured on one core", output)
    write_eigenvectors(stored, shard, {"device": "cpu"})
    assert "eigenvectors/dino_s8" not in run().output


def test_the_listing_goes_before_what_is_said(clone):
    listing = pd.DataFrame({"image_id": [1, 2], "file_name": ["a", "b"], "shard": [0, 1]})
    write_listing(listing, clone / "results/images/coco_val.parquet")
    output = run("--images", "coco_val=77").output
    assert cell(output, "predictions", "images") == "2"


def test_sizes_and_rates_can_be_given(clone):
    output = run("--images", "coco_val=7200", "--rate", "predictions=2").output
    assert cell(output, "predictions", "images") == "7,200"
    assert cell(output, "predictions", "GPU-hours") == "1.0"
    assert re.search(r"predictions +2  given", output)


@pytest.mark.parametrize(
    "words", [("--images", "coco_val=many"), ("--rate", "=3"), ("--rate", "3")]
)
def test_numbers_are_numbers(clone, words):
    result = run(*words)
    assert result.exit_code == 2
    assert "is not NAME=NUMBER" in result.output


@pytest.mark.parametrize(
    ("rule", "detector", "images"),
    [
        ("detector", "cuvler_round1", "236,800"),  # 14,800 iterations of 16
        ("detector", "cutler_round0", "2,560,000"),  # 160,000
        ("fine_tuning", "cuvler_round0_10percent", "144,000"),  # 9,000
    ],
)
def test_every_kind_of_detector_has_its_own_schedule(clone, monkeypatch, rule, detector, images):
    wildcard = "detector" if rule == "detector" else "fine_tuned"
    output = FILES[rule].under("results", **{wildcard: detector})
    monkeypatch.setattr(plan_command, "summary", lambda _: summary_of([(rule, output)]))
    assert cell(run().output, rule, "images") == images


@pytest.mark.parametrize("words", [("--images", "coco_vla=3"), ("--rate", "predictoins=3")])
def test_mistyped_names_are_told(clone, words):
    result = run(*words)
    assert result.exit_code == 2
    assert "not in this plan, which has" in result.output


def test_an_unknown_size_is_asked_for(clone, monkeypatch):
    listing = "images", "results/images/uvo_dense_val.parquet"
    monkeypatch.setattr(plan_command, "summary", lambda _: summary_of([listing]))
    with pytest.raises(ConfigError, match="--images uvo_dense_val=NUMBER"):
        CliRunner().invoke(cuvler, ["plan"], catch_exceptions=False)
