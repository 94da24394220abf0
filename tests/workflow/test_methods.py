"""A method of another package, in Snakemake and in the commands of its jobs."""

import json
import os
import re

import pytest
import yaml

pytestmark = pytest.mark.workflow


@pytest.fixture
def toy(toy_package, monkeypatch):
    path = [str(toy_package), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


def recipe(workplace, method):
    """CuVLER's recipe with the demo's detector and another method, without self-training."""
    defaults = yaml.safe_load((workplace.folder / "config/config.yaml").read_text())
    cuvler = defaults["recipes"]["cuvler"]
    self_training = cuvler["self_training"] | {"rounds": 0, "dataset": ""}
    return cuvler | {"method": method, "detector_config": "demo", "self_training": self_training}


def test_a_method_of_another_package(workplace, tiny, toy):
    recipes = {"mine": recipe(workplace, "split"), "alone": recipe(workplace, "bright")}
    tiny |= {"recipe": ["mine", "alone"], "recipes": recipes}
    tiny["pseudo_masks"]["split"] = {"level": 0.8}
    settings = workplace.configure(**tiny)
    planned = workplace.snakemake("-n", "all", *settings)
    assert re.search(r"^eigenvectors +4$", planned, re.MULTILINE)  # none for `bright`
    assert re.search(r"^pseudo_masks +8$", planned, re.MULTILINE)
    targets = [f"results/demo/annotations/demo_train/{name}.json" for name in ("split", "bright")]
    workplace.snakemake(*targets, *settings)
    merged = [json.loads((workplace.folder / target).read_text()) for target in targets]
    assert [content["info"]["method"] for content in merged] == ["split", "bright"]
    assert merged[0]["info"]["level"] == 0.8
    assert [content["summary"]["images"] for content in merged] == [{"ok": 9}] * 2


def test_a_wrong_setting_of_it_stops_before_any_job(workplace, tiny, toy):
    tiny["pseudo_masks"]["split"] = {"level": 8}
    output = workplace.snakemake("-n", *workplace.configure(**tiny), status=1)
    assert "pseudo_masks.split.level: 8" in output
