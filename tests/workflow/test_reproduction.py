"""Published files, from a local server, scored and compared with published figures."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from ..conftest import REPOSITORY

pytestmark = pytest.mark.workflow

TARGET = "results/demo/reproduction.md"


def jobs(output):
    """Return the table of jobs at the end of a dry-run."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}


def rows(page):
    """The page's rows, without headings: lists of cells."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("entry", "dataset", "---")]


def test_a_fresh_clone_plans_the_page_and_names_what_is_missing(workplace):
    output = workplace.snakemake("-n", "results/reproduction.md")
    assert jobs(output) == {"reproduction": 1, "total": 1}
    assert re.search("coco_val is skipped: .*datasets/coco/val2017", output)
    assert "download.model_cuvler_zero_shot.pth" in output
    workplace.snakemake("results/reproduction.md")
    page = (workplace.folder / "results/reproduction.md").read_text()
    reasons = {row[0]: row[-1] for row in rows(page)}
    assert "datasets/coco/val2017" in reasons["COCO"]
    assert "get it from https://cocodataset.org" in reasons["COCO"]
    assert "download.model_cuvler_zero_shot.pth" in reasons["CuVLER, zero-shot"]


def test_data_that_is_there_is_planned_and_predictions_are_jobs_like_others(workplace):
    coco = workplace.folder / "datasets/coco"
    for name in ("val2017/1.jpg", "annotations/instances_val2017.json"):
        (coco / name).parent.mkdir(parents=True, exist_ok=True)
        (coco / name).touch()
    (workplace.folder / "resources/downloads").mkdir(parents=True)
    (workplace.folder / "resources/downloads/cutler_semi_10perc.pth").touch()
    output = workplace.snakemake(
        "--profile", "profiles/slurm", "-n", "-p", "results/reproduction.md"
    )
    scored = dict.fromkeys(("file", "predictions", "evaluation"), 3)
    expected = {f"reproduction_{name}": count for name, count in scored.items()}
    expected |= {"images": 1, "reproduction": 1}
    assert jobs(output) == expected | {"total": sum(expected.values())}
    predicted = [
        block for block in output.split("\n\n") if "rule reproduction_predictions" in block
    ]
    assert all("slurm_partition=gpu" in block and "gres=" in block for block in predicted)
    commands = re.sub(r"\s+", " ", output)
    for entry, config in (
        ("cutler_cascade", "cutler_cascade"),
        ("cutler_mask_rcnn", "cutler_mask_rcnn"),
        ("cutler_10percent", "semi_supervised_10"),
    ):
        assert re.search(rf"--detector \S+/{entry}\.file --detector-config {config} ", commands)
    assert re.search(r"predictions/cutler_10percent/coco_val\.json .*?--per-category", commands)


@pytest.fixture
def server(tmp_path):
    """A folder and its URL."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


class Package:
    """A copy of the package with stand-ins for what is published."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(
            REPOSITORY / "cuvler", folder / "cuvler", ignore=shutil.ignore_patterns("__pycache__")
        )

    def publish(self, entries, files, figures):
        for name, content in (
            ("reproduction/entries.yaml", entries),
            ("download/published.yaml", files),
            ("evaluation/published.yaml", figures),
        ):
            (self.folder / "cuvler" / name).write_text(yaml.safe_dump(content))


@pytest.fixture
def package(tmp_path, monkeypatch):
    found = Package(tmp_path / "package")
    monkeypatch.setenv("PYTHONPATH", str(found.folder))
    return found


def publish_detector(path):
    """The demo's detector in the published format, from random weights."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("detectron2")
    from detectron2.modeling import build_model

    from cuvler.detector.config import load_detector_config

    torch.manual_seed(0)
    model = build_model(load_detector_config("demo", num_gpus=0))
    torch.save({"model": model.state_dict(), "iteration": 7}, path)


def publish_masks(scenes, path):
    """Every second object of the scenes, with scores, as pseudo-masks are published."""
    content = json.loads((scenes / "val/annotations.json").read_text())
    kept = content["annotations"][::2]
    content["annotations"] = [record | {"score": 1 / (1 + n)} for n, record in enumerate(kept)]
    path.write_text(json.dumps(content))


def scores_by_hand(folder, truth, *words):
    """Return the result of `cuvler evaluation` without the workflow."""
    command = ["cuvler", "evaluation", "--ground-truth", truth, "--output", folder / "own.json"]
    subprocess.run([*command, *words], check=True, env=os.environ)
    return json.loads((folder / "own.json").read_text())


def entry(name, file, **more):
    found = {"name": name, "title": name, "file": file, "iou_types": ["bbox", "segm"]}
    return found | {"datasets": ["demo_val"], "published": name} | more


@pytest.mark.slow
def test_the_whole_page_against_a_server(workplace, tiny, scenes, server, package, tmp_path):
    served, address = server
    truth, images = scenes / "val/annotations.json", scenes / "val/images"
    publish_detector(served / "tiny.pth")
    publish_masks(scenes, served / "masks.json")
    shutil.copy(served / "tiny.pth", served / "wrong.pth")
    (served / "other.pth").write_bytes(b"no checkpoint")
    masks = scores_by_hand(tmp_path, truth, "--results", served / "masks.json")
    assert masks["segm"]["AP"] > 10
    detector = {"detector_config": "demo"}
    everywhere = {"datasets": ["demo_val", "elsewhere", "nowhere"]}
    entries = [
        entry("tiny", "tiny.pth", **detector, **everywhere),
        entry("masks", "masks.json"),
        entry("absent", "absent.pth", **detector),
        entry("wrong", "wrong.pth", **detector),
        entry("other", "other.pth", **detector),
        entry("unknown", "unknown.pth", **detector),
    ]
    names = ("tiny.pth", "masks.json", "absent.pth", "wrong.pth", "other.pth")
    files = [{"file": name, "url": f"{address}/{name}", "what": name} for name in names]
    files[3]["sha256"] = hashlib.sha256(b"another file").hexdigest()
    published = {"AP": round(masks["segm"]["AP"], 1), "AP50": masks["segm"]["AP50"] + 0.2}
    figures = [{"name": "masks", "source": "a paper", "segm": {"demo_val": published}}]
    package.publish(entries, files, figures)
    tiny["datasets"]["elsewhere"] = {"images": "gone", "ground_truth": "gone.json"}
    settings = workplace.configure(**tiny)

    output = workplace.snakemake(TARGET, *settings)
    assert re.search(r"elsewhere is skipped: .*gone, gone\.json", output)
    page = (workplace.folder / TARGET).read_text()
    found = {(row[0], row[2], row[3]): row for row in rows(page) if len(row) == 8}
    results = workplace.folder / "results/demo/reproduction"

    # The numbers are those of `cuvler evaluation` on `cuvler predictions`.
    predict = ["cuvler", "predictions", "--detector", served / "tiny.pth", "--image-root", images]
    predict += ["--detector-config", "demo", "--num-gpus", "0", "--workers", "0"]
    predict += ["--listing", truth, "--output", tmp_path / "found.json"]
    subprocess.run(predict, check=True, env=os.environ)
    own = scores_by_hand(tmp_path, truth, "--results", tmp_path / "found.json")
    assert json.loads((results / "evaluation/demo_val/tiny.json").read_text()) == own
    for iou_type, word in (("bbox", "boxes"), ("segm", "masks")):
        for metric in ("AP", "AP50", "AR100"):
            assert found["tiny", word, metric][4:] == ["", f"{own[iou_type][metric]:.2f}", "", ""]
        assert found["masks", "boxes", "AR100"][5] == f"{masks['bbox']['AR100']:.2f}"
    row = found["masks", "masks", "AP"]
    assert row[5] == f"{masks['segm']['AP']:.2f}"
    assert (row[4], row[7]) == (f"{published['AP']:.1f} [^1]", "within 0.1")
    assert found["masks", "masks", "AP50"][6:] == ["-0.20", "differs"]
    assert "1 of 2 figures with a published value are within 0.1" in page
    assert "[^1]: a paper" in page

    # What is missing is named, each with its reason.
    skipped = {row[0]: row[-1] for row in rows(page) if len(row) < 8}
    assert set(skipped) == {"absent", "wrong", "other", "unknown", "elsewhere", "nowhere"}
    assert "404" in skipped["absent"]
    assert "sha256 is" in skipped["wrong"]
    assert "not a file of tensors" in skipped["other"]
    assert "set download.unknown.pth" in skipped["unknown"]
    assert "datasets.nowhere: not in the config" in skipped["nowhere"]

    # The next run repeats only what was skipped; then there is nothing to do.
    shutil.copy(served / "tiny.pth", served / "absent.pth")
    made = (results / "predictions/tiny/demo_val.json", results / "evaluation/demo_val/tiny.json")
    again = {path: path.stat().st_mtime_ns for path in made}
    plan = jobs(workplace.snakemake("-n", TARGET, *settings))
    assert (plan["reproduction_file"], plan["reproduction"]) == (3, 1)
    workplace.snakemake(TARGET, *settings)
    assert again == {path: path.stat().st_mtime_ns for path in again}
    page = (workplace.folder / TARGET).read_text()
    assert [row[5] for row in rows(page) if row[0] == "absent"] == [
        row[5] for row in rows(page) if row[0] == "tiny"
    ]
    assert {row[0] for row in rows(page) if "404" in row[-1]} == set()
    absent = results / "evaluation/demo_val/absent.json"
    before = absent.stat().st_mtime_ns
    plan = jobs(workplace.snakemake("-n", TARGET, *settings))
    assert plan["reproduction_file"] == 2  # of the wrong and the other
    workplace.snakemake(TARGET, *settings)
    assert absent.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_dataset_in_parts_is_a_row_and_not_the_end(workplace, tiny, scenes, server, package):
    served, address = server
    publish_detector(served / "tiny.pth")
    part = workplace.folder / "part"
    shutil.copytree(scenes / "val/images", part / "images")
    next((part / "images").iterdir()).unlink()
    tiny["datasets"]["part"] = {
        "images": str(part / "images"),
        "ground_truth": str(scenes / "val/annotations.json"),
    }
    package.publish(
        [entry("tiny", "tiny.pth", detector_config="demo", datasets=["part", "demo_val"])],
        [{"file": "tiny.pth", "url": f"{address}/tiny.pth", "what": "a detector"}],
        [],
    )
    workplace.snakemake(TARGET, *workplace.configure(**tiny))
    found = rows((workplace.folder / TARGET).read_text())
    assert {row[1] for row in found if len(row) == 8} == {"demo_val"}
    assert [row[:2] for row in found if len(row) < 8] == [["tiny", "part"]]
    assert "1 of 3 images" in found[-1][-1]
