import numpy as np
import pytest

from cuvler.evaluation import evaluate
from cuvler.evaluation.curves import RECALLS, precision_recall


@pytest.fixture
def truth():
    boxes = [[10 * n, 10 * n, 8, 8] for n in range(20)]
    annotations = [
        {"id": n, "image_id": n % 4, "category_id": 1, "bbox": box, "area": 64, "iscrowd": 0}
        for n, box in enumerate(boxes, start=1)
    ]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 300, "height": 300} for n in range(4)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1}]}


def results(truth, seed):
    """Some of the objects, found a little beside their place, and some that are not there."""
    rng = np.random.default_rng(seed)
    found = []
    for annotation in truth["annotations"]:
        x, y, width, height = annotation["bbox"]
        shift = float(rng.choice([0, 1, 2, 100]))
        box = [x + shift, y, width, height]
        found.append(
            {"image_id": annotation["image_id"], "category_id": 1, "bbox": box}
            | {"score": float(rng.random())}
        )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_the_means_of_the_curves(truth, seed):
    found = results(truth, seed)
    curves = precision_recall(truth, found)
    metrics = evaluate(truth, found)
    assert curves[50].mean() == pytest.approx(metrics["AP50"])
    assert curves[75].mean() == pytest.approx(metrics["AP75"])
    assert curves[50].shape == RECALLS.shape
    assert (np.diff(curves[50]) <= 0).all()  # interpolated
    assert 0 < curves[75].mean() < curves[50].mean()


def test_perfect_results_and_none(truth):
    perfect = [{**a, "score": 1.0} for a in truth["annotations"]]
    assert (precision_recall(truth, perfect)[75] == 100).all()
    assert (precision_recall(truth, [])[50] == 0).all()


def test_without_objects_there_is_no_curve(truth):
    assert precision_recall(truth | {"annotations": []}, results(truth, 0)) == {}
