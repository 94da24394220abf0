from pathlib import Path

import pytest
import yaml

from cuvler.config import check_config, dataset
from cuvler.errors import ConfigError
from cuvler.ground_truth import FORMATS

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "workflow/schemas/config.schema.yaml"
KNOWN = yaml.safe_load((REPOSITORY / "config/datasets.yaml").read_text())["datasets"]


@pytest.fixture
def config():
    content = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    return content | {"datasets": dict(KNOWN)}


# What the papers score: boxes alone, or masks too.
WITH_MASKS = {"coco_val", "coco20k", "lvis_val", "uvo_dense_val", "uvo_sparse_val"}
BOXES = {"voc07", "clipart", "comic", "watercolor", "kitti", "objects365_val", "openimages_val"}


def test_every_benchmark_of_the_papers_is_known_with_what_it_is_scored_by(config):
    check_config(config | {"evaluate": sorted(WITH_MASKS | BOXES | {"imagenet_val"})}, SCHEMA)
    found = {name: dataset(config, name) for name in KNOWN}
    assert {name for name in WITH_MASKS | BOXES if found[name].masks} == WITH_MASKS
    limits = {name for name in found if found[name].max_detections}
    assert (limits, found["lvis_val"].max_detections) == ({"lvis_val"}, 300)
    titles = [entry.title for entry in found.values()]
    assert len(set(titles)) == len(titles)
    assert all(entry.source.startswith("http") for entry in found.values())


def test_formats_are_those_that_can_be_converted(config):
    assert {entry["format"] for entry in KNOWN.values() if "format" in entry} == FORMATS.keys()
    config["datasets"]["mine"] = {"images": "x", "annotations": "y", "format": "yolo"}
    with pytest.raises(ConfigError, match=rf"allowed: {', '.join(FORMATS)}$"):
        check_config(config, SCHEMA)


@pytest.mark.parametrize(
    ("entry", "made_from"),
    [
        ({"annotations": "a.json"}, None),
        ({"annotations": "a.json", "title": "Mine", "masks": False}, None),
        ({"annotations": "a.json", "extra_annotations": ["b.json"]}, ["a.json", "b.json"]),
        ({"annotations": ["a.json", "b.json"]}, ["a.json", "b.json"]),
        ({"annotations": "a", "format": "voc", "image_lists": ["c", "/d"]}, ["a", "c", "/d"]),
    ],
)
def test_ground_truth_is_made_where_the_entry_says_of_what(config, entry, made_from):
    config["datasets"]["mine"] = {"images": "x"} | entry
    config["datasets_root"] = "root"
    check_config(config, SCHEMA)
    found = dataset(config, "mine")
    if made_from is None:
        assert (found.ground_truth, found.annotations) == (None, Path("root/a.json"))
    else:
        assert found.ground_truth is not None
        assert found.ground_truth.files == [Path("root", name) for name in made_from]
        assert found.annotations == Path("results/ground_truth/mine.json")
        assert found.ids == "annotations"  # the listing has those of the ground truth


@pytest.mark.parametrize("key", ["format", "image_lists", "extra_annotations"])
def test_what_ground_truth_is_made_of_needs_annotations(config, key):
    value = "coco" if key == "format" else ["x"]
    config["datasets"]["mine"] = {"images": "x", key: value}
    with pytest.raises(ConfigError, match=r"datasets\.mine: 'annotations' is a dependency"):
        check_config(config, SCHEMA)
