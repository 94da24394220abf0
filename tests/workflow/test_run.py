"""Runs of the workflow on a few scenes."""

import json
import os
import re
import shutil
import signal
import time

import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ANNOTATIONS = "results/demo/annotations/demo_train/votecut.json"


def test_from_images_to_report_and_again(workplace, tiny):
    tiny["recipe"] = ["cuvler", "cutler"]
    settings = workplace.configure(**tiny)
    workplace.snakemake("all", *settings)
    results = workplace.folder / "results/demo"

    metrics = json.loads((results / "demo_val_metrics.json").read_text())
    detectors = [f"{recipe}_round{n}" for recipe in ("cuvler", "cutler") for n in (0, 1)]
    assert list(metrics) == ["votecut", "maskcut", *detectors]
    for entry in metrics.values():
        for iou_type in ("bbox", "segm"):
            assert 0 <= entry[iou_type]["AP50"] <= 100
    for method in ("votecut", "maskcut"):
        merged = json.loads((results / f"annotations/demo_train/{method}.json").read_text())
        assert len(merged["images"]) == 9
        assert merged["annotations"]
        assert merged["info"]["method"] == method
    previous = merged["annotations"]
    learned = json.loads((results / "self_training/cutler_round1.json").read_text())
    assert 0 < learned["info"]["num_previous_kept"] <= len(previous)
    page = (results / "report.html").read_text()
    assert all(detector in page for detector in detectors)
    assert not list(results.glob("**/*.part"))

    assert "Nothing to be done" in workplace.snakemake("all", *settings)

    # Snakemake's own report includes the page.
    workplace.snakemake("--report", "own.html", *settings)
    assert "report.html" in (workplace.folder / "own.html").read_text(encoding="utf-8")

    # A run of one recipe only needs new tables and a new report.
    alone = workplace.snakemake("-n", "all", *workplace.configure(**tiny | {"recipe": "cuvler"}))
    assert re.search(r"^metrics +1$", alone, re.MULTILINE)
    assert not re.search(r"^(pseudo_masks|detector|predictions|evaluation) ", alone, re.MULTILINE)

    # A comment triggers nothing; a setting triggers only the stages that depend on it.
    workplace.configure(**tiny)
    with (workplace.folder / "own.yaml").open("a") as stream:
        stream.write("# a comment\n")
    assert "Nothing to be done" in workplace.snakemake("-n", "all", *settings)
    tiny["pseudo_masks"]["votecut"]["tau_m"] = 0.3
    changed = workplace.configure(**tiny)
    plan = workplace.snakemake("-n", "all", *changed)
    assert re.search(r"^pseudo_masks +4$", plan, re.MULTILINE)
    assert not re.search(r"^(images|eigenvectors) ", plan, re.MULTILINE)


def test_neither_a_kill_nor_the_number_of_shards_changes_the_bytes(workplace, tiny):
    tiny["datasets"]["demo_train"]["shards"] = 1
    workplace.snakemake(ANNOTATIONS, *workplace.configure(**tiny))
    undisturbed = (workplace.folder / ANNOTATIONS).read_bytes()
    shutil.rmtree(workplace.folder / "results")

    tiny["datasets"]["demo_train"]["shards"] = 3
    settings = workplace.configure(**tiny)
    run = workplace.start(ANNOTATIONS, *settings)
    shards = workplace.folder / "results/demo/pseudo_masks/demo_train/votecut"
    deadline = time.monotonic() + 300
    while not list(shards.glob("[0-9].json")):
        assert run.poll() is None, run.stdout.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    finished = {path: path.stat().st_mtime_ns for path in shards.glob("[0-9].json")}
    assert not (workplace.folder / ANNOTATIONS).exists()

    workplace.snakemake("--unlock", *settings)
    workplace.snakemake(ANNOTATIONS, *settings)
    assert (workplace.folder / ANNOTATIONS).read_bytes() == undisturbed
    # At most the shard that Snakemake had not yet recorded as finished is made again.
    again = [path for path, time_ns in finished.items() if path.stat().st_mtime_ns != time_ns]
    assert len(again) <= 1
