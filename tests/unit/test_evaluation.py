import contextlib
import io
import json
import math
import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cuvler.coco import Annotation
from cuvler.commands.evaluation import command as evaluation_command
from cuvler.commands.metrics import command as metrics_command
from cuvler.errors import DataError
from cuvler.evaluation import METRICS, compact, evaluate, evaluate_all, matching
from cuvler.masks import encode, geometry

HEIGHT, WIDTH = 112, 128


def mask_record(box, holes=None):
    """A COCO record of a rectangle without every ``holes``-th pixel."""
    x, y, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + height, x : x + width] = True
    if holes:
        mask.reshape(-1)[::holes] = False
    rle = encode(mask)
    return {"segmentation": rle, "bbox": [float(v) for v in box], "area": geometry(rle)["area"]}


def ground_truth(annotations, image_ids=(7, 9, 20)):
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in image_ids
        ],
        "categories": [{"id": 1, "name": "object"}, {"id": 5, "name": "other"}],
        "annotations": annotations,
    }


@st.composite
def boxes(draw):
    # Sides of 32 and 96 are COCO's limits of small and medium.
    sides = st.one_of(st.sampled_from([32, 96]), st.integers(1, 100))
    width, height = draw(sides), draw(sides)
    x, y = draw(st.integers(0, WIDTH - width)), draw(st.integers(0, HEIGHT - height))
    return [x, y, width, height]


# At and around COCO's limits between small, medium and large; None uses the mask's area.
AREAS = [32**2, 32**2 - 1e-6, 32**2 + 1e-6, 96**2, 96**2 - 1e-6, 96**2 + 1e-6, None]


@st.composite
def cases(draw):
    """Ground truth with crowds and empty images; results near it, elsewhere, with tied scores.

    Areas are at the limits between sizes, and images have more results than the smallest limit.
    """
    annotations, results = [], []
    for image_id in (7, 9, 20):
        placed = draw(st.lists(boxes(), max_size=3))
        for box in placed:
            record = mask_record(box, draw(st.sampled_from([None, None, 3])))
            crowd = draw(st.sampled_from([0, 0, 0, 1]))
            category = draw(st.sampled_from([1, 5]))
            record["area"] = draw(st.sampled_from(AREAS)) or record["area"]
            annotations.append(
                {"image_id": image_id, "category_id": category, "iscrowd": crowd, **record}
            )
        candidates = st.one_of(boxes(), st.sampled_from(placed)) if placed else boxes()
        scores = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
        for box, score in draw(st.lists(st.tuples(candidates, scores), max_size=5)):
            # If every pixel is a hole, the mask is empty but has a box.
            record = mask_record(box, draw(st.sampled_from([None, 2, 5, 1])))
            category = draw(st.sampled_from([1, 5]))
            results.append(
                {"image_id": image_id, "category_id": category, "score": score, **record}
            )
    for number, annotation in enumerate(annotations):
        annotation["id"] = number  # from 0, an id that pycocotools itself mishandles
    return ground_truth(annotations), results


def reference(truth, results, iou_type, class_agnostic, max_detections):
    """Call pycocotools as its documentation describes."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            **truth,
            "annotations": [dict(a, id=n + 1) for n, a in enumerate(truth["annotations"])],
        }
        coco.createIndex()
        # As in detectron2: a result without a box gets the area of its mask.
        unwanted = "bbox" if iou_type == "segm" else "segmentation"
        copies = [{k: v for k, v in r.items() if k not in (unwanted, "area")} for r in results]
        if copies:
            found = coco.loadRes(copies)
        else:
            found = COCO()
            found.dataset = {**truth, "annotations": []}
            found.createIndex()
        evaluator = COCOeval(coco, found, iou_type)
        limits = sorted({1, 10, 100, max_detections})
        evaluator.params.maxDets = limits
        evaluator.params.useCats = 0 if class_agnostic else 1
        evaluator.evaluate()
        evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    best = limits.index(max_detections)
    chosen = [precision[..., 0, best], precision[0, ..., 0, best], precision[5, ..., 0, best]]
    chosen += [precision[..., area, best] for area in (1, 2, 3)]
    chosen += [recall[..., 0, limits.index(limit)] for limit in (1, 10, 100)]
    names = list(METRICS)
    if max_detections > 100:
        names.append(f"AR{max_detections}")
        chosen.append(recall[..., 0, best])
    if not class_agnostic:
        names += ["AP-object", "AP-other"]
        chosen += [precision[:, :, index, 0, best] for index in (0, 1)]
    means = [values[values > -1].mean() * 100 if (values > -1).any() else None for values in chosen]
    return dict(zip(names, means, strict=True))


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if value is None:
            assert ours[name] is None, name
        else:
            assert ours[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@settings(max_examples=40)
@given(case=cases(), max_detections=st.sampled_from([2, 100, 300]))
def test_equals_pycocotools(iou_type, case, max_detections):
    truth, results = case
    ours = evaluate(truth, results, iou_type=iou_type, max_detections=max_detections)
    # Without useCats pycocotools sorts by category first; mapping all to one category is
    # equivalent.
    merged = dict(truth, annotations=[dict(a, category_id=1) for a in truth["annotations"]])
    one = [dict(r, category_id=1) for r in results]
    assert_same(ours, reference(merged, one, iou_type, True, max_detections))


@settings(max_examples=20)
@given(case=cases())
def test_equals_pycocotools_per_category(case):
    truth, results = case
    ours = evaluate(truth, results, iou_type="segm", class_agnostic=False)
    assert_same(ours, reference(truth, results, "segm", False, 100))


def test_detections_beyond_the_limit_do_not_count():
    """150 objects, all found: with the published limit for LVIS, and with LVIS's own."""
    places = [(x, y) for x in range(0, 120, 8) for y in range(0, 100, 10)]
    objects = [mask_record([x, y, 5, 6]) | {"image_id": 7, "category_id": 1} for x, y in places]
    truth = ground_truth([{"id": n, "iscrowd": 0, **one} for n, one in enumerate(objects)])
    results = [{"score": 1 - n / 1000, **one} for n, one in enumerate(objects)]
    for iou_type in ("bbox", "segm"):
        scores = evaluate(truth, results, iou_type=iou_type)
        assert round(scores["AP"], 2) == 66.34
        assert evaluate(truth, results, iou_type=iou_type, max_detections=300)["AP"] == 100


def test_equals_pycocotools_beyond_the_limit_of_detections():
    generator = np.random.default_rng(0)
    annotation = {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0}
    truth = ground_truth([{**annotation, **mask_record([10, 10, 40, 40])}])
    results = []
    for _ in range(150):
        x, y = generator.integers(5, 16, 2).tolist()
        score = round(float(generator.random()), 2)
        record = mask_record([x, y, 40, 40])
        results.append({"image_id": 7, "category_id": 1, "score": score, **record})
    for limit in (100, 150, 300):
        ours = evaluate(truth, results, iou_type="segm", max_detections=limit)
        assert_same(ours, reference(truth, results, "segm", True, limit))
    assert ours["AP"] > 10
    assert ours["AR300"] >= ours["AR100"] > ours["AR10"]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_results_may_be_in_any_order_and_on_the_disk(iou_type, monkeypatch, tmp_path):
    """More images than are matched at a time, and results of an image far from each other."""
    monkeypatch.setattr(matching, "_IMAGES", 7)
    monkeypatch.setattr(compact, "_IN_MEMORY", 500)
    generator = np.random.default_rng(0)
    image_ids = [3 * number - 30 for number in range(20)]
    annotations, results = [], []
    for image_id in image_ids:
        for _ in range(generator.integers(0, 4)):
            x, y = generator.integers(0, 60, 2).tolist()
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1}
            annotations.append(ids | {"iscrowd": 0} | mask_record([x, y, 40, 40]))
            near = mask_record([x + int(generator.integers(0, 9)), y, 40, 40])
            results.append({"image_id": image_id, "category_id": 1, **near})
    order = generator.permutation(len(results)).tolist()
    results = [results[i] | {"score": n / len(order)} for n, i in enumerate(order)]
    truth = ground_truth(annotations, image_ids)
    found = evaluate_all(truth, results, iou_types=[iou_type], folder=tmp_path)[iou_type]
    assert 10 < found["AP"] < 90
    assert_same(found, reference(truth, results, iou_type, True, 100))
    assert not list(tmp_path.iterdir())


def test_memory_is_that_of_arrays():
    """The estimate in the module's docstring; with the content of the file it would be 2 kB."""
    record = Annotation(None, 7, None, None, None, None, (1, 2, 3, 4), None, 0.5, False, False, {})
    tracemalloc.start()
    records = compact.CompactRecords(["bbox"], None)
    for _ in range(10_000):
        records.add(record)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 60 < used / len(records) < 100


def perfect():
    truth = ground_truth(
        [
            {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, **mask_record([4, 4, 40, 40])},
            {"id": 2, "image_id": 9, "category_id": 5, "iscrowd": 0, **mask_record([0, 0, 9, 9])},
        ]
    )
    results = [
        {"image_id": 7, "category_id": 1, "score": 0.9, **mask_record([4, 4, 40, 40])},
        {"image_id": 9, "category_id": 1, "score": 0.3, **mask_record([0, 0, 9, 9])},
    ]
    return truth, results


def test_perfect_results_score_one_hundred_and_sizes_without_objects_are_undefined():
    for iou_type in ("bbox", "segm"):
        scores = evaluate(*perfect(), iou_type=iou_type)
        assert scores["APl"] is None
        rest = [value for name, value in scores.items() if name != "APl"]
        assert rest == pytest.approx([100] * 8)


def test_no_results_score_zero_and_no_ground_truth_is_undefined():
    truth, results = perfect()
    assert evaluate(truth, [], iou_type="segm")["AP"] == 0
    assert set(evaluate(ground_truth([]), results).values()) == {None}
    assert set(evaluate(ground_truth([]), []).values()) == {None}


def test_pseudo_masks_are_scored_like_results(tmp_path):
    truth, results = perfect()
    annotations = {"info": {}, "images": truth["images"], "annotations": results}
    for record in annotations["annotations"]:
        del record["category_id"]
    for name, content in (("truth", truth), ("found", annotations)):
        (tmp_path / name).write_text(json.dumps(content))
    both = evaluate_all(tmp_path / "truth", tmp_path / "found")
    assert both["segm"]["AP"] == pytest.approx(100)
    assert both["bbox"]["AP"] == pytest.approx(100)
    assert (both["num_images"], both["num_ground_truth"], both["num_results"]) == (3, 2, 2)


def test_annotations_without_scores_get_score_one():
    truth, results = perfect()
    results.append({"image_id": 9, "category_id": 1, **mask_record([50, 50, 20, 20])})
    bare = [{k: v for k, v in r.items() if k != "score"} | {"id": 1} for r in results]
    scored = [r | {"score": 1.0} for r in bare]
    for iou_type in ("bbox", "segm"):
        found = evaluate(truth, {"images": [], "annotations": bare}, iou_type=iou_type)
        assert found == evaluate(truth, scored, iou_type=iou_type)
    # Annotations must have all scores or none, and results all.
    with pytest.raises(DataError, match=r"result 2 .*'score' is missing"):
        evaluate(truth, {"images": [], "annotations": results})
    with pytest.raises(DataError, match=r"result 0 .*'score' is missing"):
        evaluate(truth, bare)


def test_polygons_and_uncompressed_rle_are_ground_truth_too():
    truth, results = perfect()
    truth["annotations"][0]["segmentation"] = [[4, 4, 44, 4, 44, 44, 4, 44]]
    counts = []
    for _ in range(9):
        counts += [HEIGHT - 9, 9] if counts else [0, 9]
    counts.append(HEIGHT * WIDTH - sum(counts))
    truth["annotations"][1]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    for annotation in truth["annotations"]:
        del annotation["area"]
    assert evaluate(truth, results, iou_type="segm")["AP"] == pytest.approx(100)


def test_ground_truth_without_masks_scores_only_boxes():
    truth, results = perfect()
    for annotation in truth["annotations"]:
        annotation["segmentation"] = []
    scores = evaluate_all(truth, results)
    assert "segm" not in scores
    assert scores["bbox"]["AP"] == pytest.approx(100)
    with pytest.raises(DataError, match=r"annotation 0 \(id 1.*'segmentation'"):
        evaluate_all(truth, results, iou_types=["segm"])


def broken(change):
    truth, results = perfect()
    change(truth, results)
    return truth, results


BAD = {
    "2 images that ground truth does not list: 100, 101": lambda t, r: (
        r[0].update(image_id=101),
        r[1].update(image_id=100),
    ),
    r"result 1 \(image 9\): 'score' .* not nan": lambda t, r: r[1].update(score=math.nan),
    r"result 0 \(image 7\): 'score' is missing": lambda t, r: r[0].pop("score"),
    r"mask of \[10, 10\] .* image of \[112, 128\]": lambda t, r: r[0].update(
        segmentation=encode(np.ones((10, 10), bool))
    ),
    r"result 1 \(image 9\): 'bbox' .* 128 x 112 .*\[150": lambda t, r: r[1].update(
        bbox=[150, 0, 9, 9]
    ),
    r"result 1 \(image 9\): 'bbox' .* \[0, 0, nan, 3\]": lambda t, r: r[1].update(
        bbox=[0, 0, math.nan, 3]
    ),
    "result 1: 'image_id' ": lambda t, r: r[1].pop("image_id"),
    "image 0 .*: 'id' .*'seven'": lambda t, r: t["images"][0].update(id="seven"),
    r"annotation 1 \(id 2\): 'image_id' ": lambda t, r: t["annotations"][1].update(image_id=None),
    "category 0: 'id' ": lambda t, r: t["categories"][0].pop("id"),
    r"annotation 0 .*: 'segmentation' .* \[\[1, 2\]\]": lambda t, r: t["annotations"][0].update(
        segmentation=[[1, 2]]
    ),
    # pycocotools would score both incomplete masks.
    r"result 0 \(image 7\): .*mask.* 128 x 112": lambda t, r: r[0].update(
        segmentation={"size": [HEIGHT, WIDTH], "counts": "04o"}
    ),
    "annotation 0 .*mask": lambda t, r: t["annotations"][0].update(
        segmentation={"size": [HEIGHT, WIDTH], "counts": "%%zz"}
    ),
    "'id' 7 is listed twice": lambda t, r: t["images"].append(dict(t["images"][0])),
    "'image_id' is 8, .* not listed": lambda t, r: t["annotations"][0].update(image_id=8),
    "'height' .* not None": lambda t, r: t["images"][0].update(height=None),
    "image 7 has no 'width'": lambda t, r: (
        t["images"][0].update(height=None, width=None),
        t["annotations"][0].update(segmentation=[[4, 4, 9, 4, 9, 9]]),
    ),
    "not COCO annotations .* no 'images'": lambda t, r: t.pop("images"),
    "no images": lambda t, r: (t.update(images=[], annotations=[]), r.clear()),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    truth, results = broken(BAD[message])
    with pytest.raises(DataError, match=message):
        evaluate_all(truth, results, iou_types=["bbox", "segm"])


def test_different_ids_of_the_same_images_are_refused():
    truth, results = perfect()
    renumbered = [{"id": 7, "file_name": "9.jpg"}, {"id": 9, "file_name": "7.jpg"}]
    with pytest.raises(DataError, match=r"image 7 is 9\.jpg, but 7\.jpg"):
        evaluate(truth, {"images": renumbered, "annotations": results})
    moved = [{"id": number, "file_name": f"val/{number}.jpg"} for number in (7, 9)]
    assert evaluate(truth, {"images": moved, "annotations": results})["AP"] == pytest.approx(100)


def test_different_sizes_of_the_same_images_are_refused():
    truth, results = perfect()
    small = [{"id": 7, "file_name": "7.jpg", "height": 56, "width": 64}, {"id": 9}]
    for result in results:
        del result["segmentation"]
    with pytest.raises(DataError, match=r"image 7 .*\[56, 64\].*\[112, 128\]"):
        evaluate(truth, {"images": small, "annotations": results})
    unread = [{"id": 7, "file_name": "7.jpg", "height": None, "width": None}, {"id": 9}]
    found = evaluate(truth, {"images": unread, "annotations": results})
    assert found["AP"] == pytest.approx(100)


def test_unknown_categories_are_refused_unless_class_agnostic():
    truth, results = perfect()
    results[0]["category_id"] = 3
    assert evaluate(truth, results)["AP"] == pytest.approx(100)
    with pytest.raises(DataError, match="category 3 "):
        evaluate(truth, results, class_agnostic=False)


def test_content_that_is_not_results_is_refused():
    truth, _ = perfect()
    with pytest.raises(DataError, match="results: "):
        evaluate(truth, {"predictions": []})
    with pytest.raises(DataError, match="results: None"):
        evaluate(truth, None)
    with pytest.raises(DataError, match="result 0: must be an object, not 'a'"):
        evaluate(truth, ["a"])
    with pytest.raises(DataError, match=r"ground truth: COCO results .* swapped"):
        evaluate([], truth)


def test_masks_of_results_may_have_any_form_and_give_boxes_and_areas():
    """As for ground truth; an area of NaN is computed too."""
    truth, results = perfect()
    truth["annotations"][0]["area"] = math.nan
    results[0]["segmentation"] = [[4, 4, 44, 4, 44, 44, 4, 44]]
    for result in results:
        del result["bbox"]
    for iou_type in ("bbox", "segm"):
        assert evaluate(truth, results, iou_type=iou_type)["AP"] == pytest.approx(100)


def test_a_ground_truth_without_annotations_is_said(caplog):
    evaluate(ground_truth([]), [])
    assert caplog.messages[0] == "ground truth: no annotations: scores are undefined"


def test_the_number_of_images_with_results_is_logged(caplog):
    truth, results = perfect()
    caplog.set_level("INFO")
    evaluate(truth, results[:1])
    assert caplog.messages == ["results: 1 results on 1 of 3 images", "scoring boxes"]


def test_commands_write_scores_and_collect_them_in_order(tmp_path):
    truth, results = perfect()
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    arguments = ["--ground-truth", tmp_path / "truth.json", "--results", tmp_path / "results.json"]
    arguments += ["--output", tmp_path / "scores.json", "--iou-type", "segm"]
    outcome = CliRunner().invoke(evaluation_command, list(map(str, arguments)))
    assert outcome.exit_code == 0, outcome.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert "bbox" not in scores
    assert scores["segm"]["APl"] is None

    entry = str(tmp_path / "scores.json")
    output = str(tmp_path / "metrics.json")
    arguments = ["--entry", f"z={entry}", "--entry", f"a={entry}", "--output", output]
    assert CliRunner().invoke(metrics_command, arguments).exit_code == 0
    del scores["precision"]  # curves are not for the table
    assert list(json.loads((tmp_path / "metrics.json").read_text()).items()) == [
        ("z", scores),
        ("a", scores),
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["a"], "not NAME=PATH"),
        (["a=/nowhere/b.json"], "/nowhere/b.json: no such file"),
        (["a=.", "a=."], "given twice: a"),
    ],
)
def test_metrics_refuses_bad_entries(tmp_path, entries, message):
    arguments = [part for entry in entries for part in ("--entry", entry)]
    arguments += ["--output", str(tmp_path / "m.json")]
    outcome = CliRunner().invoke(metrics_command, arguments)
    assert outcome.exit_code == 2
    assert message in outcome.output


def test_metrics_refuses_other_files(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    arguments = ["--entry", f"a={tmp_path}/results.json", "--output", str(tmp_path / "m.json")]
    outcome = CliRunner().invoke(metrics_command, arguments)
    assert "results.json: not what `cuvler evaluation` writes" in str(outcome.exception)


def test_categories_of_one_name_have_their_ids():
    truth = {
        "images": [{"id": 1, "width": 9, "height": 9}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 3, "name": "crane"}, {"id": 4, "name": "crane"}],
    }
    results = [{"image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5], "score": 1}]
    scores = evaluate(truth, results, class_agnostic=False)
    assert scores["AP-crane (3)"] == pytest.approx(100)
    assert scores["AP-crane (4)"] is None
