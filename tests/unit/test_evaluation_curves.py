"""Precision over recall: the metrics are the means of these curves."""

import numpy as np
import pytest

from cuvler.evaluation import evaluate_all


@pytest.fixture
def truth():
    boxes = [[10 * n, 10 * n, 8, 8] for n in range(20)]
    annotations = [
        {"id": n, "image_id": n % 4, "category_id": 1, "bbox": box, "area": 64, "iscrowd": 0}
        for n, box in enumerate(boxes, start=1)
    ]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 300, "height": 300} for n in range(4)]
    categories = [{"id": n} for n in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}


def results(truth, seed):
    """Some of the objects, slightly shifted, and some false positives."""
    rng = np.random.default_rng(seed)
    found = []
    for annotation in truth["annotations"]:
        x, y, width, height = annotation["bbox"]
        shift = float(rng.choice([0, 1, 1.3, 2, 100]))  # IoU 1, 0.78, 0.72, 0.6, 0
        box = [x + shift, y, width, height]
        found.append(
            {"image_id": annotation["image_id"], "category_id": 1, "bbox": box}
            | {"score": float(rng.random())}
        )
    return found


def curves(truth, found, **settings):
    return evaluate_all(truth, found, **settings)["precision"]["bbox"]


@pytest.mark.parametrize("class_agnostic", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_the_means_of_the_curves(truth, seed, class_agnostic):
    found = results(truth, seed)
    for records in (truth["annotations"], found):
        for number, record in enumerate(records):
            record["category_id"] = 1 + number % 2
    scores = evaluate_all(truth, found, class_agnostic=class_agnostic)
    drawn = scores["precision"]["bbox"]
    for name in ("AP50", "AP75"):
        assert np.mean(drawn[name]) == pytest.approx(scores["bbox"][name])
        assert len(drawn[name]) == 101
        assert (np.diff(drawn[name]) <= 1e-9).all()  # interpolated
    assert 0 < np.mean(drawn["AP75"]) < np.mean(drawn["AP50"])


def test_perfect_results_and_none(truth):
    perfect = [{**a, "score": 1.0} for a in truth["annotations"]]
    assert curves(truth, perfect)["AP75"] == pytest.approx([100] * 101)
    assert curves(truth, []) == {"AP50": [0] * 101, "AP75": [0] * 101}


def test_without_objects_there_is_no_curve(truth):
    assert curves(truth | {"annotations": []}, results(truth, 0)) == {}
