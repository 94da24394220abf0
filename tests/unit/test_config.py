import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from cuvler.config import check, read, require_config_files
from cuvler.errors import ConfigError
from cuvler.layout import DetectorName

REPOSITORY = Path(__file__).parents[2]
SCHEMA = yaml.safe_load((REPOSITORY / "workflow/schemas/config.schema.yaml").read_text())


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
    check(config)
    Draft202012Validator(SCHEMA).validate(config)


# Values that are wrong by themselves: the schema that editors use refuses them too.
VALUES = [
    ("trian", "x", r"trian: unknown key.*did you mean train\?"),
    ("eigenvectors/tua", 0.1, r"eigenvectors\.tua: unknown key.*did you mean tau\?"),
    ("eigenvectors/definitions/dino_s8", {"tua": 1}, r"dino_s8\.tua: unknown key.*mean tau\?"),
    ("eigenvectors/definitions/dino_s8", {"tau": 2}, r"dino_s8\.tau: 2 .*number from -1 to 1"),
    ("pseudo_masks/crf", "fst", r'pseudo_masks\.crf: "fst" .* allowed: .*pydensecrf'),
    ("pseudo_masks/votecat", {}, r"votecat: unknown key.*did you mean votecut\?"),
    ("pseudo_masks/votecut/crf", "fast", r"votecut\.crf: unknown key.*known: .*tau_m"),
    ("pseudo_masks/votecut/ks", [2, 1], r"votecut\.ks\.1: 1 .* allowed: whole number from 2"),
    ("pseudo_masks/votecut/ks", [2, 2], r"votecut\.ks: .*more than once: 2"),
    ("images/shards", 0, r"images\.shards: 0 .* allowed: whole number from 1 to 100000"),
    ("images/shards", "4", r'images\.shards: "4" .* allowed: whole number'),
    ("detector/num_gpus", True, r"detector\.num_gpus: true .* allowed: whole number"),
    ("detector/nodes", 0, r"detector\.nodes: 0 .* allowed: whole number from 1"),
    ("annotations/max_failed", "1%", r'max_failed: "1%" .* allowed: number from 0 to 1'),
    ("annotations/max_failed", None, r"max_failed: null .* allowed: number from 0 to 1"),
    ("evaluate", "coco_val", r'evaluate: "coco_val" .* allowed: list of names.*\[coco_val\]'),
    ("recipes/cuvler/self_training/rounds", -1, r"recipes\.cuvler\.self_training\.rounds: -1"),
    ("recipes/mine", {"method": "votecut"}, r"recipes\.mine\.detector_config: missing"),
    ("gpus", "all", r'gpus: "all" .* allowed: auto or whole number from 0'),
    ("gpus", -1, r"gpus: -1 .* allowed: auto or whole number from 0"),
    ("recipe", 5, r"recipe: 5 .* allowed: name or list of names"),
    ("recipe", [], r"recipe: \[\] .* allowed: name or list of names \(at least one"),
    ("datasets/mine", {"image": "x"}, r"datasets\.mine\.image: unknown key.*images\?"),
    ("datasets/mine", {"images": "x", "shards": 0}, r"datasets\.mine\.shards: 0"),
    ("datasets/mine", {"images": "x", "ground_truth": 1}, r"mine\.ground_truth: 1 .*path or list"),
    ("datasets/mine", 5, r"datasets\.mine: 5 .* allowed: path or mapping"),
    ("datasets/my photos", "x", r'datasets\.my photos: "my photos" .* name \(letters, digits'),
    ("download/a b", {"url": "http://x"}, r'"a b" .* file name \(letters, digits'),
    ("download/w.pth", {"url": "ftp://x"}, r'w\.pth\.url: "ftp://x" .* address \(https'),
    ("download/w.pth", {"url": "gdrive:1", "sha256": "0"}, r'"0" .* sha256 \(64 hex'),
    ("download/w.pth", {"sha256": "0" * 64}, r"download\.w\.pth\.url: missing"),
]
# Names that must exist, and settings that must fit together.
REFERENCES = [
    ("train", "coco_trian", r"train: 'coco_trian' is not known; did you mean coco_train\?"),
    ("evaluate", ["nowhere"], r"evaluate: 'nowhere' is not known; known: .*coco_val"),
    ("evaluate", ["imagenet_train"], r"datasets\.imagenet_train\.ground_truth: needed"),
    ("detector/validation", "nowhere", r"detector\.validation: 'nowhere' is not known"),
    ("detector/validation", "imagenet_train", r"datasets\.imagenet_train\.ground_truth: needed"),
    ("fine_tuning/validation", "no", r"fine_tuning\.validation: 'no' is not known"),
    ("recipe", "cutlery", r"recipe: 'cutlery' is not known; .*known: cutler, cuvler"),
    ("eigenvectors/definitions/dino_s9", {"tau": 0}, r"dino_s9.*missing.*did you mean dino_s8\?"),
    ("eigenvectors/definitions/dino_s8", {"size": 99}, r"dino_s8.*size 99 .* choose 96 or 104"),
    ("pseudo_masks/maskcut/backbone", "dino", r"maskcut\.backbone: 'dino' is not known"),
    ("recipes/cuvler/method", "votecat", r"recipes\.cuvler\.method: 'votecat' .*votecut\?"),
    ("recipes/cuvler/self_training/dataset", "no", r"self_training\.dataset: 'no' is not known"),
    ("recipes/cuvler/detector_config", "x", r"detector_config: 'x' is not known; .*votecut_cad"),
    ("recipes/cuvler/self_training/keep_previous", True, r"keep_previous needs the annotations"),
    ("detector/nodes", 3, r"detector\.nodes: 3, .*num_gpus 8: votecut_cad .* 16 .* 24 processes"),
    ("detector/num_gpus", 3, r"cad_self_train has batches of 16 .* 3 processes"),
]


@pytest.mark.parametrize(("key", "value", "message"), VALUES + REFERENCES)
def test_a_mistake_is_named_with_what_is_allowed(config, key, value, message):
    with pytest.raises(ConfigError, match=message) as raised:
        check(change(config, key, value))
    # The key that was meant is named, and nothing else.
    assert len({line.split(":")[0] for line in str(raised.value).splitlines()[1:]}) == 1 or (
        "missing" in str(raised.value)
    )


def test_a_batch_is_divided_among_all_nodes(config):
    config = change(config, "detector/nodes", 2)
    check(config)
    opts = ["SOLVER.IMS_PER_BATCH", 24]
    with pytest.raises(ConfigError, match=r"batches of 24 images.* detector\.opts .*of 16"):
        check(change(config, "detector/opts", opts))
    # Fine-tuning has its own, and is checked if it is scored.
    config = change(config, "fine_tuning/opts", opts)
    check(config)
    with pytest.raises(
        ConfigError, match=r"semi_supervised_1 .* 24 .* fine_tuning\.opts"
    ) as raised:
        check(change(config, "fine_tuning/evaluate", ["coco_val"]))
    assert len(str(raised.value).splitlines()) == 1 + len(config["fine_tuning"]["percents"])


@pytest.mark.parametrize(("key", "value"), [case[:2] for case in VALUES])
def test_the_schema_refuses_what_the_model_refuses(config, key, value):
    assert not Draft202012Validator(SCHEMA).is_valid(change(config, key, value))


def test_all_mistakes_at_once(config):
    wrong = change(change(config, "images/shards", 0), "eigenvectors/tau", 2)
    with pytest.raises(ConfigError, match=r"(?s)images\.shards.*eigenvectors\.tau"):
        check(wrong)
    wrong = change(change(config, "train", "x"), "pseudo_masks/votecut/backbones", ["s7", "s8"])
    with pytest.raises(ConfigError, match=r"(?s)train: 'x'.*'s7'.*'s8'"):
        check(wrong)


def test_every_level_is_closed():
    def closed(schema):
        if isinstance(schema, dict):
            assert schema.get("type") != "object" or "additionalProperties" in schema, schema
            for part in schema.values():
                closed(part)
        elif isinstance(schema, list):
            for part in schema:
                closed(part)

    closed(SCHEMA)


def test_every_setting_is_described():
    described = [SCHEMA, *SCHEMA["$defs"].values()]
    properties = [item for schema in described for item in schema["properties"].items()]
    missing = [key for key, value in properties if "description" not in value | reference(value)]
    assert not missing


def reference(schema):
    return SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else {}


@pytest.mark.parametrize(
    ("entry", "images", "ground_truth", "ids"),
    [
        ("/data/photos", "/data/photos", None, "order"),
        ("photos", "root/photos", None, "order"),
        ("/data/gt.JSON", "/data", "/data/gt.JSON", "ground_truth"),
        ({"images": "a", "ground_truth": "b.json"}, "root/a", "root/b.json", "ground_truth"),
        ({"images": "a", "ids": "digits"}, "root/a", None, "digits"),
        ("$PHOTOS/x", "/env/x", None, "order"),
    ],
)
def test_a_dataset_is_one_entry(config, monkeypatch, entry, images, ground_truth, ids):
    monkeypatch.setenv("PHOTOS", "/env")
    config = change(change(config, "datasets/mine", entry), "datasets_root", "root")
    resolved = check(config).dataset("mine")
    assert resolved.images == Path(images)
    assert resolved.ground_truth == (Path(ground_truth) if ground_truth else None)
    assert (resolved.ids, resolved.shards) == (ids, 4)


@pytest.mark.parametrize(("rounds", "first"), [(2, 1), (0, 0)])
def test_rounds_can_start_from_predictions_made_elsewhere(config, rounds, first):
    config = change(config, "datasets/mine", {"images": "a", "predictions": "b.json"})
    config = change(config, "datasets_root", "root")
    assert check(config).first_round("cuvler") == 0  # its self-training is on another dataset
    config = change(config, "recipes/cuvler/self_training/dataset", "mine")
    settings = check(change(config, "recipes/cuvler/self_training/rounds", rounds))
    assert settings.dataset("mine").predictions == Path("root/b.json")
    assert settings.first_round("cuvler") == first


def test_jobs_hold_the_gpus_that_the_config_gives_them(config):
    assert check(config).gpus_by_rule() == {
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
    assert not any(check(config).gpus_by_rule().values())


def test_recipes_are_one_or_several(config):
    assert check(config).recipe_names == ("cuvler",)
    assert check(config | {"recipe": ["cuvler", "cutler"]}).recipe_names == ("cuvler", "cutler")


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        (DetectorName("cuvler", 0), "votecut_cad"),
        (DetectorName("cutler", 2), "cutler_self_train"),
        (DetectorName("cuvler", 1, 5), "semi_supervised_5"),
    ],
)
def test_every_detector_has_its_config(config, detector, expected):
    assert check(config).detector_config(detector) == expected


def test_the_last_score_threshold_stays(config):
    self_training = check(config).recipes["cutler"].self_training
    assert [self_training.score_threshold(round_) for round_ in (1, 2, 3)] == [0.7, 0.65, 0.65]


def test_reading_settings_is_light():
    script = (
        "import sys; from cuvler.config import read; read([])\n"
        "print({'torch', 'numba', 'zarr', 'pandas', 'snakemake', 'detectron2'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert result.stdout == "set()\n", result.stderr


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.MAX_ITER"], r"detector\.opts: 1 items.*pairs"),
        (["SOLVER.MAX_ITR", 5], r"detector\.opts: SOLVER\.MAX_ITR: .*mean SOLVER\.MAX_ITER\?"),
        (["SOLVER.MAX_ITER", 1.5], r"SOLVER\.MAX_ITER: 1\.5 is not a whole number"),
        (["SOLVER.BASE_LR", "fast"], r"SOLVER\.BASE_LR: 'fast' is not a number"),
        (["SOLVER.AMP.ENABLED", "yes"], r"AMP\.ENABLED: 'yes' is not True or False"),
        (["SOLVER.STEPS", 3], r"SOLVER\.STEPS: 3 is not a list"),
        (["SOLVER.STEPS", [3, 4]], r"detector\.opts\.1: \[3, 4\] .*as text: \"\[3, 4\]\""),
        (["MODEL.RESNETS", 3], r"MODEL\.RESNETS: a group of settings"),
        ([5, 5], r"detector\.opts: 5: detectron2 has no such setting"),
    ],
)
def test_opts_are_checked_without_detectron2(config, opts, message):
    with pytest.raises(ConfigError, match=message):
        check(change(config, "detector/opts", opts))
    with pytest.raises(ConfigError, match=message.replace("detector", "fine_tuning")):
        check(change(config, "fine_tuning/opts", opts))


def test_opts_of_every_type_are_taken(config):
    opts = ["SOLVER.MAX_ITER", 5, "SOLVER.BASE_LR", 0.5, "SOLVER.STEPS", "(3, 4)"]
    opts += ["SOLVER.AMP.ENABLED", True, "MODEL.FPN.NORM", "GN", "SOLVER.BASE_LR", "1e-3"]
    assert list(check(change(config, "detector/opts", opts)).detector.opts) == opts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.yaml: has no settings"),
        ("# later", r"x\.yaml: has no settings"),
        ("train:\n\tx: 1", r"x\.yaml: not YAML .*indent by spaces instead of tabs"),
        ("- a", r"x\.yaml: not a mapping .*\['a'\]"),
        ("[" * 5000, r"x\.yaml: not YAML"),
        ('"a": \xff', r"x\.yaml: not YAML"),
    ],
)
def test_config_files_that_are_none_are_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "x.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        read([tmp_path / "x.yaml"])


def test_config_files_may_be_json_and_have_a_bom(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "x.json").write_text('{\n\t"results": "here"\n}')
    (tmp_path / "y.yaml").write_bytes(b"\xef\xbb\xbftrain: coco_val")
    found = read([tmp_path / "x.json", tmp_path / "y.yaml"])
    assert (found.results, found.train) == ("here", "coco_val")


def test_a_folder_without_the_config_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"datasets\.yaml: no such file in {tmp_path}.*start"):
        require_config_files()
