"""Fine-tuning a class-agnostic detector on real classes."""

import json

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler

from cuvler.detector import train
from cuvler.detector.checkpoints import load_state, load_weights, save_model
from cuvler.detector.config import base_config, load_detector_config, merge_file
from cuvler.detector.solver import build_optimizer, is_new_predictor, is_predictor
from cuvler.detector.train import train_detector
from cuvler.errors import ConfigError
from cuvler.evaluation import evaluate
from cuvler.predictions import Options, predict_dataset

PREDICTORS = {
    *(
        f"roi_heads.box_predictor.{stage}.{layer}.{kind}"
        for stage in range(3)
        for layer in ("cls_score", "bbox_pred")
        for kind in ("weight", "bias")
    ),
    "roi_heads.mask_head.predictor.weight",
    "roi_heads.mask_head.predictor.bias",
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pretrained(tiny_overrides, tmp_path):
    """Weights of a class-agnostic detector with a distinct value in every parameter."""
    torch.manual_seed(7)
    model = build_model(load_detector_config("demo", num_gpus=0, overrides=tiny_overrides))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.01, std=0.02)
    save_model(model, tmp_path / "pretrained.pth")
    return tmp_path / "pretrained.pth"


def make_config(tiny_overrides, *overrides, weights=""):
    more = ("SOLVER.STEPS", "()", *overrides)
    cfg = load_detector_config(
        "demo_semi_supervised", num_gpus=0, overrides=(*tiny_overrides, *more)
    )
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.MODEL.WEIGHTS = str(weights)
    return cfg


def test_all_but_the_predictors_of_classes_are_loaded(
    tiny_classes, tiny_overrides, pretrained, tmp_path
):
    rate = ("SOLVER.MAX_ITER", "1", "SOLVER.BASE_LR", "1e-12")
    cfg = make_config(tiny_overrides, *rate, weights=pretrained)
    train_detector(cfg, *tiny_classes, tmp_path / "run", num_gpus=0)
    previous = load_state(pretrained)["model"]
    found = load_state(tmp_path / "run" / "model_final.pth")["model"]
    assert {name for name in found if is_predictor(name)} == PREDICTORS
    for name, value in found.items():
        if "running" in name or "num_batches" in name:
            continue
        # detectron2 initializes predictors: standard deviation at most 0.01, zero biases.
        if is_new_predictor(name):
            assert value.shape != previous[name].shape or not torch.allclose(value, previous[name])
            assert value.abs().mean() < 0.011
            assert abs(value.mean()) < 0.005
        else:
            torch.testing.assert_close(value, previous[name], atol=1e-6, rtol=0, msg=name)
    resolved = base_config()
    merge_file(resolved, tmp_path / "run" / "config.yaml")
    assert resolved.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert tuple(resolved.DATASETS.CATEGORY_IDS) == (7, 90)
    assert tuple(resolved.DATASETS.CATEGORY_NAMES) == ("hole", "lamp")


@pytest.mark.parametrize(("agnostic", "kept"), [("True", True), ("False", False)])
def test_class_agnostic_box_regression_is_kept(tmp_path, agnostic, kept):
    """At the published size; the file has only the tested layer and one of the backbone."""
    heads = ("MODEL.ROI_HEADS.NAME", "PseudoLabelStandardROIHeads")
    options = (*heads, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic)
    cfg = load_detector_config(
        "semi_supervised_10", num_gpus=0, overrides=options if not kept else ()
    )
    model = build_model(cfg)
    layer = f"roi_heads.box_predictor.{'0.' if kept else ''}bbox_pred.weight"
    weights = {
        layer: torch.full_like(model.state_dict()[layer], 0.5),
        layer.replace("bbox_pred", "cls_score"): torch.full((2, 1024), 0.5),
        "roi_heads.mask_head.predictor.weight": torch.full((80, 256, 1, 1), 0.5),
        "roi_heads.mask_head.deconv.bias": torch.full((256,), 0.5),
    }
    torch.save({"model": weights}, tmp_path / "weights.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    train._load_initial(model, cfg)
    found = model.state_dict()
    assert found[layer].shape == ((4, 1024) if kept else (320, 1024))
    assert found["roi_heads.mask_head.deconv.bias"].eq(0.5).all()
    assert found[layer].eq(0.5).all() == kept
    assert found[layer.replace("bbox_pred", "cls_score")].shape == (81, 1024)
    assert not found["roi_heads.mask_head.predictor.weight"].eq(0.5).any()


def test_skipped_parameters_are_reported_as_missing(pretrained, tiny_overrides):
    model = build_model(load_detector_config("demo", num_gpus=0, overrides=tiny_overrides))
    assert not load_weights(model, pretrained).missing
    loaded = load_weights(model, pretrained, skip=is_predictor)
    assert set(loaded.missing) == PREDICTORS
    assert not loaded.mismatched
    assert not loaded.unexpected


def test_class_agnostic_training_of_several_classes_is_refused(
    tiny_classes, tiny_overrides, tmp_path
):
    overrides = ("DATASETS.CLASS_AGNOSTIC", "True", "MODEL.ROI_HEADS.NUM_CLASSES", "80")
    cfg = make_config(tiny_overrides, *overrides)
    with pytest.raises(ConfigError, match=r"NUM_CLASSES: 80, .*DATASETS\.CLASS_AGNOSTIC"):
        train_detector(cfg, *tiny_classes, tmp_path / "run", num_gpus=0)


def test_predictors_have_the_multiplied_rate_in_every_iteration(tiny_overrides):
    cfg = make_config(tiny_overrides, "SOLVER.STEPS", "(4,)", "SOLVER.MAX_ITER", "7")
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = set()
    for _ in range(7):
        for group in optimizer.param_groups:
            fast = {is_predictor(names[id(parameter)]) for parameter in group["params"]}
            assert len(fast) == 1
            seen.add((scheduler.last_epoch, fast.pop(), round(group["lr"], 9)))
        optimizer.step()
        scheduler.step()
    # Warm-up over two iterations from a thousandth of 0.001, and a tenth from the fourth on.
    rates = [1e-6, 5.005e-4, *[1e-3] * 2, *[1e-4] * 3]
    assert seen == {
        (step, fast, round(rate * (4 if fast else 1), 9))
        for step, rate in enumerate(rates)
        for fast in (False, True)
    }


@pytest.mark.slow
def test_predictions_have_the_category_ids_of_the_annotations(
    tiny_classes, tiny_overrides, tmp_path
):
    annotations, root = tiny_classes
    pace = ("SOLVER.MAX_ITER", "200", "SOLVER.BASE_LR", "0.02", "SOLVER.IMS_PER_BATCH", "4")
    cfg = make_config(tiny_overrides, *pace, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05")
    folder = tmp_path / "run"
    train_detector(cfg, annotations, root, folder, num_gpus=0)
    results = tmp_path / "results.json"
    predict_dataset(folder, annotations, root, results, options=Options(workers=0))
    best = {}
    for record in json.loads(results.read_text()):
        best.setdefault(record["image_id"], record["category_id"])
    assert best == {index: 7 if index % 2 else 90 for index in range(6)}
    metrics = evaluate(annotations, results, class_agnostic=False)
    assert metrics["AP50"] > 50
