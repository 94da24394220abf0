import json
import re

import pytest

pytest.importorskip("detectron2")

from detectron2.config import CfgNode
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.config.detector_opts import key_types, opts_mistakes
from cuvler.detector.config import base_config, detector_config_names, load_detector_config
from cuvler.errors import ConfigError

# soft targets, DropLoss, paste scale, random count, lr, iterations, steps, gamma, decay,
# RPN post-NMS proposals and NMS threshold: the papers' table.
PUBLISHED = {
    "votecut_cad": (True, True, (0.3, 1), True, 0.01, 80000, (), None, 5e-5, 4000, 0.65),
    "cad_self_train": (
        *(True, True, (0.5, 1), False),
        *(0.05, 14800, (7400,), 0.02, 1e-4, 1000, 0.7),
    ),
    "cutler_cascade": (
        *(False, True, (0.3, 1), True),
        *(0.01, 160000, (80000,), 0.02, 5e-5, 4000, 0.65),
    ),
    "cutler_mask_rcnn": (
        *(False, True, (0.3, 1), True),
        *(0.01, 160000, (80000,), 0.1, 5e-5, 4000, 0.65),
    ),
    "cutler_self_train": (False, False, (0.5, 1), True, 0.005, 80000, (), None, 1e-4, 1000, 0.7),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_configs_are_the_published_settings(name):
    cfg = load_detector_config(name, num_gpus=8)
    soft, drop, scale, count, lr, iterations, steps, gamma, decay, proposals, nms = PUBLISHED[name]
    assert cfg.MODEL.ROI_HEADS.SOFT_TARGETS is soft
    assert cfg.MODEL.ROI_HEADS.DROP_LOSS is drop
    assert tuple(cfg.INPUT.COPY_PASTE.SCALE) == scale
    assert cfg.INPUT.COPY_PASTE.RANDOM_COUNT is count
    assert (lr, 16) == (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH)
    assert (cfg.SOLVER.MAX_ITER, tuple(cfg.SOLVER.STEPS)) == (iterations, steps)
    assert gamma in (None, cfg.SOLVER.GAMMA)
    assert decay == cfg.SOLVER.WEIGHT_DECAY
    assert (proposals, nms) == (cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.NMS_THRESH)
    assert cfg.MODEL.ROI_HEADS.DROP_LOSS_IOU_THRESH == 0.01
    assert cfg.MODEL.RESNETS.NORM == "SyncBN"
    assert cfg.SOLVER.AMP.ENABLED is (name != "cutler_mask_rcnn")
    sizes = (240, 320, 480, 640, 672, 704, 736, 768, 800, 1024)
    assert (tuple(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN) == (sizes, 1333)
    clip = cfg.SOLVER.CLIP_GRADIENTS
    assert (clip.ENABLED, clip.CLIP_TYPE, clip.NORM_TYPE, clip.CLIP_VALUE) == (True, "norm", 2, 1)
    assert (cfg.TEST.PRECISE_BN.ENABLED, cfg.TEST.PRECISE_BN.NUM_ITER) == (True, 200)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 100
    assert cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION == 0.25
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0
    assert list(cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS) == [0.5, 0.6, 0.7]


def test_only_cuvlers_self_training_pastes_all_instances():
    pasting = [
        load_detector_config(name, num_gpus=0).INPUT.COPY_PASTE for name in detector_config_names()
    ]
    all_pasted = {
        name
        for name, options in zip(detector_config_names(), pasting, strict=True)
        if options.ENABLED and not options.RANDOM_COUNT
    }
    assert all_pasted == {"cad_self_train", "demo_self_train"}
    assert {options.RATE for options in pasting} == {1.0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("RATE", "1.5"),
        ("RATE", "-0.1"),
        *[("SCALE", v) for v in ("(0.5, 1.2)", "(1, 0.5)", "(1,)")],
    ],
)
def test_copy_paste_settings_out_of_range_are_named(key, value):
    with pytest.raises(ConfigError, match=rf"INPUT\.COPY_PASTE\.{key}: "):
        load_detector_config("demo", num_gpus=0, overrides=[f"INPUT.COPY_PASTE.{key}", value])


@pytest.mark.parametrize("name", detector_config_names())
def test_every_config_loads_and_survives_a_dump(name):
    cfg = load_detector_config(name, num_gpus=0)
    again = base_config()
    again.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))
    # As JSON, in which lists equal tuples.
    assert json.dumps(again, sort_keys=True) == json.dumps(cfg, sort_keys=True)


@pytest.mark.parametrize(("batch", "factor"), [("4", 4), ("32", 0.5)])
def test_another_batch_size_scales_rate_and_schedule(batch, factor):
    cfg = load_detector_config(
        "cad_self_train", num_gpus=1, overrides=["SOLVER.IMS_PER_BATCH", batch]
    )
    assert int(batch) == cfg.SOLVER.IMS_PER_BATCH
    assert pytest.approx(0.05 / factor) == cfg.SOLVER.BASE_LR
    assert 14800 * factor == cfg.SOLVER.MAX_ITER
    assert (7400 * factor,) == cfg.SOLVER.STEPS
    assert 1000 * factor == cfg.SOLVER.WARMUP_ITERS
    assert 5000 * factor == cfg.TEST.EVAL_PERIOD


def test_overrides_of_the_schedule_are_not_scaled():
    overrides = ["SOLVER.BASE_LR", "0.3", "SOLVER.IMS_PER_BATCH", "8", "SOLVER.STEPS", "(5,)"]
    cfg = load_detector_config("cad_self_train", num_gpus=1, overrides=overrides)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER) == (0.3, (5,), 29600)


@pytest.mark.parametrize(("num_gpus", "machines", "device", "norm", "amp"), [
    (0, 1, "cpu", "BN", False), (0, 2, "cpu", "BN", False),
    (1, 1, "cuda", "BN", True), (1, 2, "cuda", "SyncBN", True), (2, 1, "cuda", "SyncBN", True),
])  # fmt: skip
def test_configs_are_adapted_to_the_machines(num_gpus, machines, device, norm, amp):
    cfg = load_detector_config("votecut_cad", num_gpus=num_gpus, machines=machines)
    assert device == cfg.MODEL.DEVICE
    assert (norm, norm) == (cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM)
    assert cfg.SOLVER.AMP.ENABLED is amp


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("votecut", [], r"votecut: unknown; choose one of .*votecut_cad"),
        ("missing.yaml", [], r"missing\.yaml: unknown"),
        ("demo", ["SOLVER.MAX_ITERS", "3"], r"SOLVER\.MAX_ITERS"),
        ("demo", ["SOLVER.MAX_ITER", "many"], r"SOLVER\.MAX_ITER"),
        ("demo", ["SOLVER.MAX_ITER"], r"SOLVER\.MAX_ITER: overrides come in pairs"),
        ("demo", ["SOLVER.IMS_PER_BATCH", "0"], r"SOLVER\.IMS_PER_BATCH: '0'"),
    ],
)
def test_errors_name_the_key(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_detector_config(name, num_gpus=0, overrides=overrides)


def test_batches_that_processes_cannot_share_are_refused():
    with pytest.raises(ConfigError, match="16 images cannot be shared by 3 processes"):
        load_detector_config("votecut_cad", num_gpus=3)
    with pytest.raises(ConfigError, match="16 images cannot be shared by 24 processes"):
        load_detector_config("votecut_cad", num_gpus=8, machines=3)


def test_user_configs_can_have_a_base_of_this_project(tmp_path):
    own = tmp_path / "own.yaml"
    base = tmp_path / "base.yaml"
    base.write_text("VERSION: 2\nSOLVER:\n  MAX_ITER: 7\n")
    own.write_text("_BASE_: base.yaml\nINPUT:\n  COPY_PASTE:\n    ENABLED: True\n")
    cfg = load_detector_config(own, num_gpus=0)
    assert (cfg.SOLVER.MAX_ITER, cfg.INPUT.COPY_PASTE.ENABLED) == (7, True)
    own.write_text("INPUT:\n  COPYPASTE: True\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: .*COPYPASTE"):
        load_detector_config(own, num_gpus=0)


def published_schedule(percent):
    """Iterations and steps of fine-tuning on a percentage of COCO, from the paper's table."""
    if percent <= 2:
        return 3600, (2400, 3200)
    if percent == 5:
        return 4500, (3000, 4000)
    iterations = percent * 900
    return iterations, (iterations * 2 // 3, iterations * 8 // 9)


@pytest.mark.parametrize("percent", [1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100])
def test_fine_tuning_configs_are_the_published_settings(percent):
    cfg = load_detector_config(f"semi_supervised_{percent}", num_gpus=8)
    iterations, steps = published_schedule(percent)
    assert (iterations, steps) == (cfg.SOLVER.MAX_ITER, tuple(cfg.SOLVER.STEPS))
    rate, factor = (0.04, 4) if percent < 50 else (0.02, 2)
    assert (rate, factor) == (cfg.SOLVER.BASE_LR, cfg.SOLVER.PREDICTOR_LR_FACTOR)
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR) == (1000, 0.001)
    assert (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.GAMMA) == (1e-4, 0.1)
    assert tuple(cfg.INPUT.MIN_SIZE_TRAIN) == (640, 672, 704, 736, 768, 800)
    assert cfg.INPUT.MAX_SIZE_TRAIN == 1333
    assert not cfg.SOLVER.CLIP_GRADIENTS.ENABLED
    assert not cfg.SOLVER.AMP.ENABLED
    assert cfg.TEST.EVAL_PERIOD == 5000
    assert (cfg.TEST.PRECISE_BN.ENABLED, cfg.TEST.PRECISE_BN.NUM_ITER) == (True, 200)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 100
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION) == (80, 0.25)
    assert list(cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS) == [0.5, 0.6, 0.7]
    assert cfg.SOLVER.IMS_PER_BATCH == 16
    assert cfg.MODEL.NEW_PREDICTORS
    assert not cfg.DATASETS.CLASS_AGNOSTIC
    assert not cfg.MODEL.ROI_HEADS.SOFT_TARGETS
    assert not cfg.MODEL.ROI_HEADS.DROP_LOSS
    assert not cfg.INPUT.COPY_PASTE.ENABLED


def test_fine_tuning_configs_know_cocos_categories():
    datasets = load_detector_config("semi_supervised_10", num_gpus=0).DATASETS
    things = [category for category in COCO_CATEGORIES if category["isthing"]]
    assert list(datasets.CATEGORY_IDS) == [category["id"] for category in things]
    assert list(datasets.CATEGORY_NAMES) == [category["name"] for category in things]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  MAX_ITER: !foo 3", r"mine\.yaml: line 2: .*the tag '!foo'"),
        ("MODEL: !!python/object/apply:os.system ['x']", r"mine\.yaml: line 1: .*os\.system"),
        ("SOLVER:\n\tMAX_ITER: 3", r"mine\.yaml: not YAML .*line 2"),
        ("A: \xff", r"mine\.yaml: not YAML"),
        ("- 1", r"mine\.yaml: not settings by section"),
        ("", r"mine\.yaml: not settings by section"),
        ("_BASE_: 5", r"mine\.yaml: .*a _BASE_ that is no file"),
        ("_BASE_: mine.yaml", r"mine\.yaml: .*a _BASE_ that is no file"),
        ("SOLVER: 2020-01-01", r"mine\.yaml: Key SOLVER"),
    ],
)
def test_files_that_are_no_detector_config_are_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        load_detector_config(path)


VALUES = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "BN", "1", "2.5", "1e-3", "True", "true", "None", "()", "(1, 2)", "[]"]),
    st.sampled_from(["[1]", "'text'", "a/b.pth", "{}", "{[]}", "1 2", "(1,", "b'x'"]),
    st.text(max_size=5),
)


@settings(max_examples=500, deadline=None)
@given(key=st.sampled_from(sorted(key_types(base_config()))), value=VALUES)
def test_opts_are_refused_before_a_job_where_detectron2_refuses_them(key, value):
    try:
        # As the rule gives them, as words of a command.
        base_config().merge_from_list([key, str(value)])
    except (AssertionError, TypeError, ValueError):
        taken = False
    else:
        taken = True
    assert (not [*opts_mistakes("detector.opts", [key, value])]) == taken
