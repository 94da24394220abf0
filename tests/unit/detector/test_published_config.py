"""Configs in the style of CutLER and CuVLER, key by key."""

import json
import logging

import pytest
import yaml

pytest.importorskip("detectron2")

from cuvler.detector.config import base_config, load_detector_config
from cuvler.detector.published_config import COMBINED, RENAMED, is_published, translate
from cuvler.errors import ConfigError

# The settings common to both systems' detectors, in a detectron2 config of theirs.
BASE = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS:
    {DEPTH: 50, OUT_FEATURES: [res2, res3, res4, res5], STRIDE_IN_1X1: False, NORM: SyncBN}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], NORM: SyncBN}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  MASK_ON: True
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    PRE_NMS_TOPK_TRAIN: 2000
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TRAIN: 4000
    POST_NMS_TOPK_TEST: 1000
    NMS_THRESH: 0.65
  ROI_HEADS:
    NAME: CustomCascadeROIHeads
    IN_FEATURES: [p2, p3, p4, p5]
    NUM_CLASSES: 1
    SCORE_THRESH_TEST: 0.0
    POSITIVE_FRACTION: 0.25
    USE_DROPLOSS: True
    DROPLOSS_IOU_THRESH: 0.01
  ROI_BOX_HEAD:
    {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7, CLS_AGNOSTIC_BBOX_REG: True}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 4, POOLER_RESOLUTION: 14}
DATASETS:
  TRAIN: ("imagenet_train",)
  TEST: ("cls_agnostic_coco",)
DATALOADER:
  COPY_PASTE: True
  COPY_PASTE_RATE: 1.0
  VISUALIZE_COPY_PASTE: False
  COPY_PASTE_RANDOM_NUM: True
  COPY_PASTE_MIN_RATIO: 0.3
  COPY_PASTE_MAX_RATIO: 1.0
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.01
  WEIGHT_DECAY: 0.00005
  CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: norm, CLIP_VALUE: 1.0, NORM_TYPE: 2.0}
  AMP: {ENABLED: True}
  CHECKPOINT_PERIOD: 2000
  STEPS: [80000]
  MAX_ITER: 160000
  GAMMA: 0.02
INPUT:
  MIN_SIZE_TRAIN: [240, 320, 480, 640, 672, 704, 736, 768, 800, 1024]
  MASK_FORMAT: bitmask
  FORMAT: RGB
TEST:
  PRECISE_BN: {ENABLED: True, NUM_ITER: 200}
  NO_SEGM: False
OUTPUT_DIR: output/
VERSION: 2
"""
CUTLER_SELF_TRAIN = """
_BASE_: base.yaml
MODEL:
  WEIGHTS: http://example.org/model_final.pth
  RPN: {POST_NMS_TOPK_TRAIN: 1000, NMS_THRESH: 0.7}
  ROI_HEADS: {USE_DROPLOSS: False}
DATALOADER: {COPY_PASTE_MIN_RATIO: 0.5}
SOLVER: {BASE_LR: 0.005, WEIGHT_DECAY: 0.0001, STEPS: [], MAX_ITER: 80000, GAMMA: 0.1}
"""
CUTLER_MASK_RCNN = """
_BASE_: base.yaml
MODEL: {ROI_HEADS: {NAME: CustomStandardROIHeads}}
SOLVER: {GAMMA: 0.1, AMP: {ENABLED: False}}
"""
VOTECUT_CAD = """
_BASE_: base.yaml
MODEL: {ROI_HEADS: {USE_SOFT_TARGETS: True}}
SOLVER: {STEPS: [], MAX_ITER: 80000, GAMMA: 0.1}
"""
STAGES = [f"roi_heads.box_predictor.{n}.{p}" for n in range(3) for p in ("cls_score", "bbox_pred")]
PREDICTORS = ["roi_heads.mask_head.predictor", *STAGES]


@pytest.fixture
def load(tmp_path):
    """Load a config in their style with this base."""
    (tmp_path / "base.yaml").write_text(BASE)

    def run(text):
        path = tmp_path / "theirs.yaml"
        path.write_text(text)
        return load_detector_config(path, num_gpus=8)

    return run


def leaves(node, path=()):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def differences(one, other):
    """Keys with different values as JSON, in which lists equal tuples."""
    others = dict(leaves(other))
    return {key for key, value in leaves(one) if json.dumps(value) != json.dumps(others[key])}


@pytest.mark.parametrize(
    ("theirs", "ours", "differing"),
    [
        ("_BASE_: base.yaml", "cutler_cascade", {"MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH"}),
        (CUTLER_MASK_RCNN, "cutler_mask_rcnn", {"MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH"}),
        (VOTECUT_CAD, "votecut_cad", {"MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH"}),
        (CUTLER_SELF_TRAIN, "cutler_self_train", set()),
    ],
)
def test_their_configs_translate_to_ours(load, theirs, ours, differing):
    # Our configs score during training if ground truth is given.
    found = differences(load(theirs), load_detector_config(ours, num_gpus=8)) - {"TEST.EVAL_PERIOD"}
    assert found == differing


def few_labels(**solver):
    heads = {"NUM_CLASSES": 80, "USE_DROPLOSS": False, "SCORE_THRESH_TEST": 0.05}
    settings = {"BASE_LR": 0.04, "BASE_LR_MULTIPLIER": 4, "BASE_LR_MULTIPLIER_NAMES": PREDICTORS}
    return yaml.safe_dump(
        {
            "_BASE_": "base.yaml",
            "MODEL": {"ROI_HEADS": heads},
            "DATALOADER": {"COPY_PASTE": False},
            "SOLVER": settings | solver,
        }
    )


def test_semi_supervised_configs_learn_classes_with_faster_predictors(load):
    cfg = load(few_labels())
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.DATASETS.CLASS_AGNOSTIC) == (80, False)
    assert (cfg.SOLVER.PREDICTOR_LR_FACTOR, cfg.INPUT.COPY_PASTE.ENABLED) == (4.0, False)


@pytest.mark.parametrize(
    "names",
    [
        ["cls_score", "bbox_pred", "mask_head.predictor"],
        [f"{name}.{kind}" for name in PREDICTORS for kind in ("weight", "bias")],
    ],
)
def test_predictors_may_be_listed_in_several_ways(load, names):
    cfg = load(few_labels(BASE_LR_MULTIPLIER_NAMES=names))
    assert cfg.SOLVER.PREDICTOR_LR_FACTOR == 4.0


@pytest.mark.parametrize(
    "solver",
    [
        {"BASE_LR_MULTIPLIER_NAMES": PREDICTORS[:-1]},
        {"BASE_LR_MULTIPLIER_NAMES": [*PREDICTORS, "backbone"]},
        {"BASE_LR_MULTIPLIER_NAMES": ["roi_heads"]},
        {"BASE_LR_MULTIPLIER_NAMES": [f"{name}.weight" for name in PREDICTORS]},
        {"BASE_LR_MULTIPLIER_NAMES": None},
    ],
)
def test_a_learning_rate_of_other_layers_is_refused(load, solver):
    with pytest.raises(ConfigError, match=r"theirs\.yaml: SOLVER\.BASE_LR_MULTIPLIER_NAMES"):
        load(few_labels(**solver))


@pytest.mark.parametrize("solver", [{"BASE_LR_MULTIPLIER": 1}, {"BASE_LR_MULTIPLIER_NAMES": []}])
def test_a_factor_without_layers_is_ignored(load, solver):
    assert load(few_labels(**solver)).SOLVER.PREDICTOR_LR_FACTOR == 1.0


# Their key and value -> our key and value.
KEYS = [
    ("USE_DROPLOSS", False, "MODEL.ROI_HEADS.DROP_LOSS", False),
    ("USE_DROPLOSS", True, "MODEL.ROI_HEADS.DROP_LOSS", True),
    ("USE_DROPLOSS", True, "MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH", "released"),
    ("USE_DROPLOSS", False, "MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH", "all"),
    ("DROPLOSS_IOU_THRESH", 0.2, "MODEL.ROI_HEADS.DROP_LOSS_IOU_THRESH", 0.2),
    ("USE_SOFT_TARGETS", True, "MODEL.ROI_HEADS.SOFT_TARGETS", True),
    ("COPY_PASTE", True, "INPUT.COPY_PASTE.ENABLED", True),
    ("COPY_PASTE_RATE", 0.5, "INPUT.COPY_PASTE.RATE", 0.5),
    ("COPY_PASTE_RATE", 0.5, "INPUT.COPY_PASTE.ENABLED", True),
    ("COPY_PASTE_RATE", 0.0, "INPUT.COPY_PASTE.ENABLED", False),
    ("COPY_PASTE_RANDOM_NUM", False, "INPUT.COPY_PASTE.RANDOM_COUNT", False),
    ("COPY_PASTE_MIN_RATIO", 0.1, "INPUT.COPY_PASTE.SCALE", [0.1, 1.0]),
    ("COPY_PASTE_MAX_RATIO", 0.9, "INPUT.COPY_PASTE.SCALE", [0.3, 0.9]),
    ("VISUALIZE_COPY_PASTE", True, "INPUT.COPY_PASTE.ENABLED", False),
    ("NO_SEGM", True, "MODEL.MASK_ON", False),
    ("EVALUATE_SOMEHOW", True, "TEST.EVAL_PERIOD", 0),
]


@pytest.mark.parametrize("section", ["DATALOADER", "MODEL.ROI_HEADS"])
@pytest.mark.parametrize(("theirs", "value", "ours", "expected"), KEYS)
def test_each_key_in_any_section(section, theirs, value, ours, expected):
    content = {"MODEL": {"ROI_HEADS": {"NAME": "CustomCascadeROIHeads"}}}
    node = content
    for part in section.split("."):
        node = node.setdefault(part, {})
    node[theirs] = value
    translated, lines = translate(content, base_config())
    cfg = base_config()
    cfg.merge_from_other_cfg(type(cfg)(translated))
    found = dict(leaves(cfg))[ours]
    assert json.dumps(found) == json.dumps(expected)
    assert any(f"{section}.{theirs}" in line for line in lines)


def test_every_renamed_key_is_tested_and_exists_here():
    known = {key for key, _ in leaves(base_config())}
    assert {*RENAMED.values(), *COMBINED.values()} <= known
    assert set(RENAMED) <= {theirs for theirs, *_ in KEYS}


def test_keys_without_effect_are_logged(load, caplog):
    caplog.set_level(logging.INFO)
    cfg = load(CUTLER_SELF_TRAIN)
    for key in ("DATASETS.TRAIN", "DATASETS.TEST", "MODEL.WEIGHTS", "OUTPUT_DIR", "TEST.NO_SEGM"):
        assert f"theirs.yaml: {key}: no effect" in caplog.text
    assert (cfg.DATASETS.TRAIN, cfg.OUTPUT_DIR) == (base_config().DATASETS.TRAIN, "./output")


def test_other_configs_are_not_translated(load, caplog):
    caplog.set_level(logging.INFO)
    plain = "MODEL: {ROI_HEADS: {NAME: CascadeROIHeads}}\nTEST: {EVAL_PERIOD: 7}\nVERSION: 2\n"
    assert not is_published(yaml.safe_load(plain), base_config())
    cfg = load(plain)
    assert (cfg.MODEL.ROI_HEADS.NAME, cfg.TEST.EVAL_PERIOD) == ("CascadeROIHeads", 7)
    assert "no effect" not in caplog.text
    ours = yaml.safe_load(load_detector_config("cutler_cascade", num_gpus=0).dump())
    assert not is_published(ours, base_config())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "SOLVER: {MAX_ITERS: 3}",
            r"theirs\.yaml: .*SOLVER\.MAX_ITERS; did you mean SOLVER\.MAX_I",
        ),
        (
            "_BASE_: base.yaml\nSOLVER: {MAX_ITERS: 3}",
            r"theirs\.yaml: .*SOLVER\.MAX_ITERS; did you mean SOLVER\.MAX_ITER\?",
        ),
        ("_BASE_: base.yaml\nMODEL: {ROI_HEADS: {USE_DROPLOSS: often}}", r"DROP_LOSS"),
        ("_BASE_: base.yaml\nMODEL: {ROI_HEADS: {NAME: OwnHeads}}", r"ROI_HEADS\.NAME: OwnHeads"),
        ("_BASE_: ../nowhere.yaml\nSOLVER: {}", r"theirs\.yaml: cannot read .*nowhere\.yaml"),
    ],
)
def test_keys_that_cannot_be_translated_are_errors(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("SOLVER.BASE_LR_MULTIPLIER", r"SOLVER\.PREDICTOR_LR_FACTOR"),
        ("MODEL.ROI_HEADS.USE_DROPLOSS", r"MODEL\.ROI_HEADS\.DROP_LOSS"),
    ],
)
def test_published_keys_as_overrides_are_named_in_our_terms(theirs, ours):
    with pytest.raises(ConfigError, match=rf"{theirs}; it is {ours} here"):
        load_detector_config("cutler_cascade", num_gpus=0, overrides=[theirs, "2"])
