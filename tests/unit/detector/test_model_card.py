import json

import pytest
import torch
import yaml

pytest.importorskip("detectron2")

from click.testing import CliRunner
from safetensors.torch import load_file

from cuvler import load_detector
from cuvler.cli import cuvler
from cuvler.detector.checkpoints import load_state
from cuvler.detector.config import load_detector_config
from cuvler.detector.model_card import latest_scores, write_card
from cuvler.detector.train import train_detector
from cuvler.errors import DataError
from cuvler.evaluation import METRICS

TRAINING = {
    "annotations": "coco/instances.json",
    "made_with": {"method": "votecut", "backbones": ["dino_s8", "pixels_p16", "own"]},
    "num_images": 12345,
    "num_instances": 67890,
    "weights": "weights/dino_resnet50.safetensors",
}


@pytest.fixture
def folder(tmp_path):
    """A detector's folder without weights."""
    folder = tmp_path / "mine_round0"
    folder.mkdir()
    (folder / "config.yaml").write_text(load_detector_config("cutler_cascade", num_gpus=0).dump())
    (folder / "training.json").write_text(json.dumps(TRAINING))
    return folder


def front_matter(folder):
    head, _, text = (folder / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(head), text


def test_a_training_writes_the_card_with_its_scores_and_both_formats_of_the_weights(
    tiny_dataset, tiny_overrides, tmp_path
):
    overrides = (*tiny_overrides, "SOLVER.MAX_ITER", "1", "TEST.EVAL_PERIOD", "1")
    cfg = load_detector_config("demo", num_gpus=0, overrides=overrides)
    cfg.DATALOADER.NUM_WORKERS = 0
    path, root = tiny_dataset
    annotations = {"info": {"method": "votecut"}, **json.loads(path.read_text())}
    path.write_text(json.dumps(annotations))
    folder = tmp_path / "mine_round0"
    train_detector(cfg, path, root, folder, num_gpus=0, evaluate=(path, root))

    data, text = front_matter(folder)
    assert data["library_name"] == "detectron2"
    (model,) = data["model-index"]
    assert model["name"] == "mine_round0"
    assert {result["task"]["type"] for result in model["results"]} == {
        "object-detection",
        "image-segmentation",
    }
    assert f"| images | {len(annotations['images'])} |" in text
    assert f"| masks | {len(annotations['annotations'])} |" in text
    assert "| iterations | 1 |" in text
    assert "| initial weights | random |" in text
    assert '"method": "votecut"' in text
    assert str(tmp_path.parent) not in text, "no path of this machine"

    pickled = load_state(folder / "model_final.pth")["model"]
    safe = load_file(folder / "model_final.safetensors")
    assert pickled.keys() == safe.keys()
    assert all(torch.equal(pickled[name], safe[name]) for name in safe)
    (folder / "model_final.pth").unlink()
    for detector in (folder, folder / "model_final.safetensors"):
        loaded = load_detector(detector, device="cpu").model.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in safe.items())


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(cuvler, ["model-card", *map(str, arguments)])

    def metrics(self, folder, value):
        scores = {kind: dict.fromkeys(METRICS, value) for kind in ("bbox", "segm")}
        numbers = {"num_images": 1, "num_ground_truth": 1, "num_results": 1}
        path = folder.parent / "coco_val_metrics.json"
        path.write_text(json.dumps({"mine_round0": {**scores, **numbers}}))
        return path

    def test_scores_replace_those_of_the_training(self, folder):
        metrics = f"coco_val={self.metrics(folder, 12.34)}"
        result = self.run(
            "--detector", folder, "--metrics", metrics, "--title", "coco_val=COCO | val"
        )
        assert result.exit_code == 0, result.output
        data, text = front_matter(folder)
        assert {one["dataset"]["name"] for one in data["model-index"][0]["results"]} == {
            "COCO | val"
        }
        assert r"| COCO \| val | mask | 12.3 | 12.3 | 12.3 |" in text
        assert "Not scored" not in text

    def test_a_metric_without_ground_truth_is_left_out(self, folder):
        self.run("--detector", folder, "--metrics", f"coco_val={self.metrics(folder, None)}")
        data, text = front_matter(folder)
        assert "model-index" not in data
        assert "| coco_val | mask | - | - | - |" in text

    def test_metrics_without_the_detector_are_named(self, folder):
        path = self.metrics(folder, 1.0)
        other = folder.rename(folder.parent / "other_round0")
        result = self.run("--detector", other, "--metrics", f"coco_val={path}")
        assert isinstance(result.exception, DataError)
        assert "other_round0" in str(result.exception)
        assert "mine_round0" in str(result.exception)


def test_licences_of_what_it_was_made_from_are_listed(folder):
    text = write_card(folder, {}).read_text()
    assert "Not scored yet" in text
    licences = text.split("## Licence")[1]
    assert "dino_resnet50.safetensors: Apache-2.0" in licences
    assert "- dino_s8, of the features behind the pseudo-masks: apache-2.0" in licences
    assert "pixels_p16" not in licences


@pytest.mark.parametrize("missing", ["training.json", "config.yaml"])
def test_a_folder_without_a_record_of_the_training_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(DataError, match=missing):
        write_card(folder, {})


@pytest.mark.parametrize("content", ["[]", "{}", '{"annotations": 1}'])
def test_another_json_is_named(folder, content):
    (folder / "training.json").write_text(content)
    with pytest.raises(DataError, match=r"training\.json"):
        write_card(folder, {})


@pytest.mark.parametrize("key", TRAINING)
def test_a_damaged_record_of_the_training_is_named(folder, key):
    for damaged in (
        TRAINING | {key: 0.5},
        {name: TRAINING[name] for name in TRAINING if name != key},
    ):
        (folder / "training.json").write_text(json.dumps(damaged))
        with pytest.raises(DataError, match=r"training\.json"):
            write_card(folder, {})


@pytest.mark.parametrize("backbones", [5, "dino_s8", [["dino_s8"], None]])
def test_annotations_from_elsewhere_may_say_anything_of_themselves(folder, backbones):
    training = TRAINING | {"made_with": {"backbones": backbones}}
    (folder / "training.json").write_text(json.dumps(training))
    assert (
        "behind the pseudo-masks" not in write_card(folder, {}).read_text().split("## Licence")[1]
    )


def test_scores_of_a_training_are_read_from_its_events():
    latest = {"bbox/AP": (1.5, 9), "segm/AR100": (2.5, 9), "total_loss": (1.0, 9)}
    assert latest_scores(latest, "val") == {"val": {"bbox": {"AP": 1.5}, "segm": {"AR100": 2.5}}}
    assert latest_scores({"total_loss": (1.0, 9)}, "val") == {}
