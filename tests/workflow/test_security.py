"""File names and settings reach the commands unchanged, also with shell metacharacters."""

import itertools
import json
import os
import subprocess

import pytest
from PIL import Image

pytestmark = pytest.mark.workflow

HOSTILE = 'it\'s "$(touch pwned)" `touch pwned`; touch pwned & {x} *'

# A stub for the command: it records its arguments and creates its outputs.
STUB = """#!/usr/bin/env python3
import json, os, pathlib, sys
words = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\\n")
for option in ("--output", "--csv", "--markdown"):
    for place in [n for n, word in enumerate(words) if word == option]:
        output = pathlib.Path(words[place + 1])
        if words[0] == "detector":
            output = output / "model_final.pth"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
if words[0] == "model-card":
    pathlib.Path(words[words.index("--detector") + 1], "README.md").touch()
"""


@pytest.fixture
def recorded(workplace, tmp_path):
    """Run Snakemake with the stub; return the arguments of each call."""
    stub = tmp_path / "bin" / "cuvler"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls = tmp_path / "calls"

    def run(*arguments):
        command = workplace.command(*arguments)
        path = f"{stub.parent}{os.pathsep}{command['env']['PATH']}"
        command["env"] |= {"PATH": path, "CALLS": str(calls)}
        result = subprocess.run(**command)
        assert result.returncode == 0, result.stdout[-5000:]
        return [json.loads(line) for line in calls.read_text().splitlines()]

    return run


def test_settings_are_quoted_in_every_rule(workplace, recorded):
    folder = workplace.folder / HOSTILE.replace("{x}", "x")
    folder.mkdir()
    (folder / "labels.json").write_text('{"images": [], "annotations": []}')
    weights = folder / "weights.pth"
    weights.touch()
    dataset = {"images": f"{folder}", "ground_truth": f"{folder}/labels.json", "shards": 1}
    definition = {"timm": HOSTILE, "feature": "key", "size": 480}
    settings = workplace.configure(
        datasets={"demo_train": dataset, "demo_val": dataset},
        detector={"weights": str(weights), "opts": ["OUTPUT_DIR", HOSTILE]},
        eigenvectors={"definitions": {"mine": definition}, "weights": {"mine": str(weights)}},
        pseudo_masks={"votecut": {"backbones": ["mine"]}},
    )
    calls = recorded("all", *settings)
    assert not list(workplace.folder.glob("**/pwned"))
    seen = {call[0] for call in calls}
    assert {"images", "eigenvectors", "pseudo-masks", "annotations", "detector"} <= seen
    assert {"predictions", "self-training", "evaluation", "metrics", "report"} <= seen
    for call in calls:
        words = dict(itertools.pairwise(call))
        if "--image-root" in words and call[0] != "report":
            assert words["--image-root"] == str(folder), call
    assert any(str(weights) in call for call in calls if call[0] == "eigenvectors")
    given = [
        json.loads(call[call.index("--definitions") + 1])
        for call in calls
        if call[0] == "eigenvectors"
    ]
    assert given == [{"mine": definition}] * len(given)
    assert all(call[-1] == HOSTILE for call in calls if call[0] == "detector")


@pytest.mark.slow
def test_hostile_file_names_come_through_the_pipeline(workplace):
    photos = workplace.folder / "photos"
    photos.mkdir()
    names = [
        "$(touch pwned).jpg",
        "`touch pwned`.png",
        "-rf.jpg",
        "a\nb.jpg",
        "'; touch pwned;'.jpg",
    ]
    for name in names:
        Image.effect_noise((64, 48), 90).convert("RGB").save(photos / name)
    target = "results/demo/annotations/mine/votecut.json"
    settings = workplace.configure(
        datasets={"mine": str(photos)},
        images={"shards": 1},
        pseudo_masks={"votecut": {"backbones": ["pixels_p16"]}},
    )
    workplace.snakemake(target, *settings)
    merged = json.loads((workplace.folder / target).read_text())
    assert sorted(image["file_name"] for image in merged["images"]) == sorted(names)
    assert not list(workplace.folder.glob("**/pwned"))
