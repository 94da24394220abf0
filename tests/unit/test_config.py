from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from cuvler.config import check_config, dataset, gpus_by_rule, recipes
from cuvler.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "workflow/schemas/config.schema.yaml"


@pytest.fixture
def config():
    content = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    known = yaml.safe_load((REPOSITORY / "config/datasets.yaml").read_text())
    return content | {"datasets": known["datasets"]}


def change(config, key, value):
    changed = deepcopy(config)
    *parents, last = key.split("/")
    section = changed
    for parent in parents:
        section = section[parent]
    section[last] = value
    return changed


def test_the_default_is_right(config):
    check_config(config, SCHEMA)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trian", "x", r"trian: unknown key.*did you mean train\?"),
        ("eigenvectors/tua", 0.1, r"eigenvectors\.tua: unknown key.*did you mean tau\?"),
        ("pseudo_masks/crf", "fst", r'crf: "fst" is not allowed; allowed: .*pydensecrf'),
        ("images/shards", 0, r"images\.shards: 0 is less than the minimum of 1"),
        ("annotations/max_failed", "1%", r"annotations\.max_failed: '1%' is not of type"),
        ("train", "nowhere", r"train: 'nowhere' is not known; known: .*coco_val"),
        ("evaluate", "coco_val", r'evaluate: "coco_val" is not a list; .* evaluate=\[coco_val\]'),
        ("evaluate", ["nowhere"], r"evaluate: 'nowhere' is not known"),
        ("evaluate", ["imagenet_train"], r"datasets\.imagenet_train\.annotations: needed"),
        ("detector/validation", "nowhere", r"detector\.validation: 'nowhere' is not known"),
        ("detector/validation", "imagenet_train", r"datasets\.imagenet_train\.annotations: needed"),
        ("fine_tuning/validation", "no", r"fine_tuning\.validation: 'no' is not known"),
        ("recipe", "cutlery", r"recipe: 'cutlery' is not known; known: cutler, cuvler"),
        ("pseudo_masks/maskcut/backbone", "dino", r"maskcut\.backbone: 'dino' is not known"),
        ("recipes/cuvler/self_training/rounds", -1, r"recipes\.cuvler\.self_training\.rounds: -1"),
        (
            "recipes/cuvler/self_training/dataset",
            "no",
            r"dataset: 'no' is not known",
        ),
        (
            "recipes/cuvler/detector",
            "x",
            r"cuvler\.detector: 'x' is not known; .*votecut_cad",
        ),
        ("recipes/cuvler/self_training/keep_former", True, r"keep_former needs the annotations"),
        ("gpus", "all", r'gpus: "all" is not allowed; allowed: auto'),
        ("gpus", -1, r"gpus: -1 is less than the minimum of 0"),
        ("recipe", 5, r"recipe: 5 is not allowed; allowed: string or array"),
        ("datasets/mine", {"image": "x"}, r"datasets\.mine\.image: unknown key.*images\?"),
        ("datasets/mine", {"images": "x", "shards": 0}, r"datasets\.mine\.shards: 0"),
        ("datasets/mine", 5, r"datasets\.mine: 5 is not allowed; allowed: string or object"),
        ("datasets/my photos", "x", r'"my photos" is not a name; use letters'),
        ("download/a b", {"url": "http://x"}, r'"a b" is not a file\'s name; use letters'),
        ("download/w.pth", {"url": "ftp://x"}, r'w\.pth\.url: "ftp://x" is not an address; https'),
        ("download/w.pth", {"url": "gdrive:1", "sha256": "0"}, r'"0" is not a sha256 of 64 hex'),
        ("download/w.pth", {"sha256": "0" * 64}, r"download\.w\.pth: 'url' is a required"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(config, key, value, message):
    with pytest.raises(ConfigError, match=message):
        check_config(change(config, key, value), SCHEMA)


def test_all_mistakes_at_once(config):
    wrong = change(change(config, "images/shards", 0), "eigenvectors/tau", 2)
    with pytest.raises(ConfigError, match=r"(?s)eigenvectors\.tau.*images\.shards"):
        check_config(wrong, SCHEMA)


def test_every_level_is_closed():
    def closed(schema):
        if isinstance(schema, dict):
            assert schema.get("type") != "object" or "additionalProperties" in schema, schema
            for part in schema.values():
                closed(part)
        elif isinstance(schema, list):
            for part in schema:
                closed(part)

    closed(yaml.safe_load(SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("entry", "images", "annotations", "ids"),
    [
        ("/data/photos", "/data/photos", None, "order"),
        ("photos", "root/photos", None, "order"),
        ("/data/gt.JSON", "/data", "/data/gt.JSON", "annotations"),
        ({"images": "a", "annotations": "b.json"}, "root/a", "root/b.json", "annotations"),
        ({"images": "a", "ids": "digits"}, "root/a", None, "digits"),
        ("$PHOTOS/x", "/env/x", None, "order"),
    ],
)
def test_a_dataset_is_one_entry(config, monkeypatch, entry, images, annotations, ids):
    monkeypatch.setenv("PHOTOS", "/env")
    config = change(change(config, "datasets/mine", entry), "datasets_root", "root")
    check_config(config, SCHEMA)
    resolved = dataset(config, "mine")
    assert resolved.images == Path(images)
    assert resolved.annotations == (Path(annotations) if annotations else None)
    assert (resolved.ids, resolved.shards) == (ids, 4)


def test_jobs_hold_the_gpus_that_the_config_gives_them(config):
    assert gpus_by_rule(config) == {
        "eigenvectors": 1,
        "detector": 8,
        "predictions": 1,
        "fine_tuning": 8,
        "fine_tuning_predictions": 1,
        "reproduction_predictions": 1,
    }
    laptop = yaml.safe_load((REPOSITORY / "config/laptop.yaml").read_text())
    for section in ("eigenvectors", "detector", "predictions"):
        config[section].update(laptop[section])
    assert not any(gpus_by_rule(config).values())


def test_slurm_is_asked_for_as_many_gpus(config):
    profile = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
    gres = {rule: asked.get("gres") for rule, asked in profile["set-resources"].items()}
    assert {rule: words for rule, words in gres.items() if words} == {
        rule: f"'gpu:{count}'" for rule, count in gpus_by_rule(config).items()
    }


def test_recipes_are_one_or_several(config):
    assert recipes(config) == ["cuvler"]
    assert recipes(config | {"recipe": ["cuvler", "other"]}) == ["cuvler", "other"]
