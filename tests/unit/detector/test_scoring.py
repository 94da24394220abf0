"""Scores during training."""

import json

import pytest
import torch

pytest.importorskip("detectron2")

from cuvler.detector import train
from cuvler.detector.checkpoints import load_state
from cuvler.detector.config import load_detector_config
from cuvler.detector.scoring import Scorer
from cuvler.detector.train import train_detector
from cuvler.errors import ConfigError, DataError
from cuvler.evaluation import METRICS, evaluate_all
from cuvler.predictions import Options, predict_dataset

# detectron2's writer does not close the metrics of an interrupted training.
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

pytestmark = pytest.mark.usefixtures("one_thread")

PACE = (
    *("SOLVER.MAX_ITER", "7", "TEST.EVAL_PERIOD", "3", "SOLVER.CHECKPOINT_PERIOD", "100"),
    *("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2"),
)


@pytest.fixture
def run(tiny_dataset, tiny_overrides, tmp_path):
    """Train a tiny detector for 7 iterations, scored after 3, 6 and 7; return its folder."""

    def run(name="run", *overrides, data=tiny_dataset, detector_config="demo", **options):
        cfg = load_detector_config(
            detector_config, num_gpus=0, overrides=(*tiny_overrides, *PACE, *overrides)
        )
        cfg.DATALOADER.NUM_WORKERS = 0
        options = {"evaluate": data} | options
        train_detector(cfg, *data, tmp_path / name, num_gpus=0, **options)
        return tmp_path / name

    return run


def scores_of(folder):
    """Iteration -> scores; at most one line per iteration has scores."""
    found = {}
    for line in map(json.loads, (folder / "metrics.json").read_text().splitlines()):
        scores = {name: value for name, value in line.items() if "/A" in name}
        if scores:
            assert line["iteration"] not in found
            found[line["iteration"]] = scores
    return found


def scores_of_model(folder, data, **options):
    """Predict with the final model and score it, as in the evaluation stage."""
    annotations, root = data
    results = folder / "results.json"
    predict_dataset(folder, annotations, root, results, options=Options(batch_size=2, workers=0))
    scores = evaluate_all(annotations, results, **options)
    return {
        f"{iou_type}/{metric}": scores[iou_type][metric]
        for iou_type in ("bbox", "segm")
        for metric in METRICS
        if scores[iou_type][metric] is not None
    }


def weights_of(folder):
    return load_state(folder / "model_final.pth")["model"]


def test_a_detector_is_scored_during_training(run, tiny_dataset):
    folder = run()
    scores = scores_of(folder)
    assert list(scores) == [2, 5, 6]
    assert scores[6] == scores_of_model(folder, tiny_dataset)
    assert {"bbox/AP", "bbox/AR100", "segm/AP50"} <= scores[2].keys()
    (events,) = folder.glob("events.out.tfevents.*")
    assert b"segm/AP50" in events.read_bytes()
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_classes_are_scored_one_by_one(run, tiny_classes):
    options = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0")
    folder = run("run", *options, data=tiny_classes, detector_config="demo_semi_supervised")
    expected = scores_of_model(folder, tiny_classes, class_agnostic=False)
    assert scores_of(folder)[6] == expected
    assert expected != scores_of_model(folder, tiny_classes, class_agnostic=True)


def test_training_is_the_same_with_scores_and_without(run):
    one, two = weights_of(run("scored")), weights_of(run("plain", evaluate=None))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@UNCLOSED
@pytest.mark.parametrize("iteration", [3, 4, 6])
def test_a_resumed_training_neither_repeats_nor_loses_scores(run, monkeypatch, iteration):
    whole = run("whole")
    score, scored = Scorer.score, []
    monkeypatch.setattr(
        Scorer, "score", lambda scorer, model: (scored.append(1), score(scorer, model))[1]
    )
    step = train.Trainer.run_step

    def stopping_step(trainer):
        if trainer.iter == iteration:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "run_step", stopping_step)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    folder = run("stopped")
    assert len(scored) == 3
    assert scores_of(folder) == scores_of(whole)
    one, two = weights_of(folder), weights_of(whole)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_resumed_training_may_add_or_remove_ground_truth(tiny_dataset, tiny_overrides):
    cfg = load_detector_config("demo", num_gpus=0, overrides=tiny_overrides)
    before = train.fingerprint(cfg, "0")
    cfg.TEST.EVAL_PERIOD = 7
    assert train.fingerprint(cfg, "0") == before


def test_unusable_ground_truth_is_refused_before_training(
    run, tiny_dataset, tiny_classes, tmp_path
):
    annotations, root = tiny_dataset
    with pytest.raises(ConfigError, match=r"TEST\.EVAL_PERIOD: 0"):
        run("run", "TEST.EVAL_PERIOD", "0")
    with pytest.raises(DataError, match=r"elsewhere/0\.png: no such file; .*annotations\.json"):
        run(evaluate=(annotations, tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"annotations\.json: lacks the categories \[7, 90\]"):
        run(data=tiny_classes, detector_config="demo_semi_supervised", evaluate=tiny_dataset)
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError, match=r"empty\.json: has no images"):
        run(evaluate=(tmp_path / "empty.json", root))
    unlabelled = json.loads(annotations.read_text()) | {"annotations": []}
    (tmp_path / "unlabelled.json").write_text(json.dumps(unlabelled))
    with pytest.raises(DataError, match=r"unlabelled\.json: has no annotations"):
        run(evaluate=(tmp_path / "unlabelled.json", root))
    assert not (tmp_path / "run/config.yaml").exists()
