import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cuvler.commands.datasets import command as datasets_command
from cuvler.config import check
from cuvler.errors import ConfigError
from cuvler.ground_truth import FORMATS

REPOSITORY = Path(__file__).parents[2]
KNOWN = yaml.safe_load((REPOSITORY / "config/datasets.yaml").read_text())["datasets"]


@pytest.fixture
def config():
    content = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    return content | {"datasets": dict(KNOWN)}


# What the papers score: boxes alone, or masks too.
WITH_MASKS = {"coco_val", "coco20k", "lvis_val", "uvo_dense_val", "uvo_sparse_val"}
BOXES = {"voc07", "clipart", "comic", "watercolor", "kitti", "objects365_val", "openimages_val"}


def test_every_benchmark_of_the_papers_is_known_with_what_it_is_scored_by(config):
    settings = check(config | {"evaluate": sorted(WITH_MASKS | BOXES | {"imagenet_val"})})
    found = {name: settings.dataset(name) for name in KNOWN}
    assert {name for name in WITH_MASKS | BOXES if found[name].masks} == WITH_MASKS
    limits = {name: entry.detections_per_image for name, entry in found.items()}
    assert {name: limit for name, limit in limits.items() if limit} == {"lvis_val": 300}
    assert not any(entry.max_detections for entry in found.values())
    titles = [entry.title for entry in found.values()]
    assert len(set(titles)) == len(titles)
    assert all(entry.source.startswith("http") for entry in found.values())


def test_what_is_to_count_is_predicted_too(config):
    config["datasets"]["mine"] = {"images": "x", "ground_truth": "y", "max_detections": 300}
    assert check(config).dataset("mine").detections_per_image == 300
    config["datasets"]["lvis_val"] = KNOWN["lvis_val"] | {"max_detections": 200}
    entry = check(config).dataset("lvis_val")
    assert (entry.detections_per_image, entry.max_detections) == (300, 200)


def test_formats_are_those_that_can_be_converted(config):
    assert {entry["format"] for entry in KNOWN.values() if "format" in entry} == FORMATS.keys()
    config["datasets"]["mine"] = {"images": "x", "ground_truth": "y", "format": "yolo"}
    with pytest.raises(ConfigError, match=rf"allowed: {', '.join(FORMATS)}$"):
        check(config)


@pytest.mark.parametrize(
    ("entry", "made_from"),
    [
        ({"ground_truth": "a.json"}, None),
        ({"ground_truth": "a.json", "title": "Mine", "masks": False}, None),
        ({"ground_truth": "a.json", "extra_ground_truth": ["b.json"]}, ["a.json", "b.json"]),
        ({"ground_truth": ["a.json", "b.json"]}, ["a.json", "b.json"]),
        ({"ground_truth": "a", "format": "voc", "image_lists": ["c", "/d"]}, ["a", "c", "/d"]),
    ],
)
def test_ground_truth_is_made_where_the_entry_says_of_what(config, entry, made_from):
    config["datasets"]["mine"] = {"images": "x"} | entry
    config["datasets_root"] = "root"
    found = check(config).dataset("mine")
    if made_from is None:
        assert (found.made_from, found.ground_truth) == (None, Path("root/a.json"))
    else:
        assert found.made_from is not None
        assert found.made_from.files == [Path("root", name) for name in made_from]
        assert found.ground_truth == Path("results/ground_truth/mine.json")
        assert found.ids == "ground_truth"  # the listing has those of the ground truth


@pytest.mark.parametrize("key", ["format", "image_lists", "extra_ground_truth"])
def test_what_ground_truth_is_made_of_needs_official_files(config, key):
    value = "coco" if key == "format" else ["x"]
    config["datasets"]["mine"] = {"images": "x", key: value}
    with pytest.raises(ConfigError, match=rf"datasets\.mine: .*{key} needs ground_truth"):
        check(config)


class TestCommand:
    @pytest.fixture
    def clone(self, tmp_path, monkeypatch):
        shutil.copytree(REPOSITORY / "config", tmp_path / "config")
        monkeypatch.chdir(tmp_path)

        def make(*paths):
            for path in paths:
                target = tmp_path / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()

        return make

    def run(self, *arguments, status=0):
        outcome = CliRunner().invoke(datasets_command, arguments)
        assert outcome.exit_code == status, outcome.output
        return outcome.output if status == 0 else outcome.exception

    def test_a_fresh_clone_misses_everything_and_says_where_to_get_it(self, clone):
        output = self.run()
        assert output.count(" missing ") == len(KNOWN)
        assert f"0 of {len(KNOWN)} are here; relative paths start at datasets" in output
        for entry in KNOWN.values():
            assert f"no datasets/{entry['images']}" in output
            assert f"get it from {entry['source']}" in output

    def test_what_is_here_and_what_is_made(self, clone):
        clone("datasets/coco/val2017/1.jpg", "datasets/lvis/lvis_v1_val.json")
        assert "lvis_val  here     LVIS: boxes and masks, 100 of 300 detections an" in self.run(
            "lvis_val"
        )
        assert "coco, not made yet" in self.run("lvis_val")
        clone("results/ground_truth/lvis_val.json")
        assert "coco, made" in self.run("lvis_val")
        output = self.run("coco_val", "lvis_val")
        assert "no datasets/coco/annotations/instances_val2017.json" in output
        assert "1 of 2 are here" in output

    def test_an_empty_folder_is_missing(self, clone, tmp_path):
        clone("datasets/imagenet/train/n01/x.JPEG")
        assert "here     ImageNet train: images alone" in self.run("imagenet_train")
        shutil.rmtree(tmp_path / "datasets/imagenet/train/n01")
        assert "no datasets/imagenet/train" in self.run("imagenet_train")

    def test_own_settings_go_first(self, clone, tmp_path):
        clone("mine/a.jpg")
        own = {"datasets_root": str(tmp_path), "datasets": {"photos": "mine", "kitti": "/gone"}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
        output = self.run("--configfile", "own.yaml", "photos", "kitti")
        assert "photos  here     photos: images alone" in output
        assert "no /gone" in output

    def test_mistakes_are_named(self, clone, tmp_path):
        assert "nowhere: not in the config; known: imagenet_train" in str(
            self.run("nowhere", status=1)
        )
        assert "gone.yaml: no such file" in str(self.run("--configfile", "gone.yaml", status=1))
        (tmp_path / "list.yaml").write_text("- a")
        assert "list.yaml: not a mapping" in str(self.run("--configfile", "list.yaml", status=1))
        assert "config: cannot be read" in str(self.run("--configfile", "config", status=1))
        (tmp_path / "bad.yaml").write_text("a: [")
        assert "bad.yaml: not YAML" in str(self.run("--configfile", "bad.yaml", status=1))
        (tmp_path / "own.yaml").write_text("trian: photos")
        assert "did you mean train?" in str(self.run("--configfile", "own.yaml", status=1))

    def test_defaults_need_not_be_said(self, clone, tmp_path):
        said = self.run()
        (tmp_path / "config/config.yaml").write_text("{}")
        assert self.run() == said
