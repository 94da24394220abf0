"""The commands that read COCO files, as functions of a file, and small files for them."""

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd

from cuvler import masks
from cuvler.compare import compare
from cuvler.detector.training_annotations import read_annotations
from cuvler.evaluation import evaluate_all
from cuvler.ground_truth import make_ground_truth
from cuvler.listing import list_images, listed_images
from cuvler.report import records
from cuvler.self_training import cutler_annotations
from cuvler.splits import write_splits

WIDTH, HEIGHT = 20, 16
SIZES = {1: (WIDTH, HEIGHT), 2: (WIDTH, HEIGHT)}


def rectangle(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    rle = masks.encode(mask)
    return {"segmentation": rle, **masks.geometry(rle)}


POLYGON = [[2, 2, 12, 2, 12, 10, 2, 10]]


def annotations():
    """Two images: a polygon on the first, RLE on the second."""
    first = rectangle(2, 2, 12, 10) | {"segmentation": POLYGON}
    return {
        "info": {"year": 2017},
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in (1, 2)
        ],
        "annotations": [
            {"id": 11, "image_id": 1, "category_id": 1, "iscrowd": 0, "score": 0.75, **first},
            {
                **{"id": 12, "image_id": 2, "category_id": 2, "iscrowd": 0, "score": 0.5},
                **rectangle(4, 4, 9, 14),
            },
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def results():
    return [
        {"image_id": 1, "category_id": 1, "score": 0.9, **rectangle(2, 2, 11, 10)},
        {"image_id": 2, "category_id": 2, "score": 0.8, **rectangle(5, 5, 9, 14)},
    ]


def read_json(path):
    return json.loads(path.read_text())


def _images(path, good):
    return listed_images(list_images("", ground_truth=path, ids="ground_truth"))


def _ground_truth(path, good):
    output = path.parent / "ground_truth.json"
    make_ground_truth(output, [path], path.parent)
    content = read_json(output)
    return content["images"], [without_id(one) for one in content["annotations"]]


def _splits(path, good):
    write_splits(path, path.parent / "splits", percents=[100])
    content = read_json(path.parent / "splits/100.json")
    ids = [one["id"] for one in content["annotations"]]
    assert len(set(ids)) == len(ids)
    assert all(type(one) is int for one in ids)
    return content["images"], [completed(one, content) for one in content["annotations"]]


def without_id(annotation):
    return {key: value for key, value in annotation.items() if key != "id"}


def completed(annotation, content):
    """An annotation copied by splits without its id, with what a reader computes of its mask."""
    (image,) = [one for one in content["images"] if one["id"] == annotation["image_id"]]
    found = without_id(annotation)
    if found.get("bbox") is None or found.get("area") is None or found["area"] != found["area"]:
        from cuvler.coco.segmentations import box_rle, compressed, polygons_rle

        size, stated = (image.get("width"), image.get("height")), found.get("segmentation")
        if not stated:
            rle = box_rle(found["bbox"], size)
        else:
            rle = compressed(stated) if isinstance(stated, dict) else polygons_rle(stated, size)
        shape = masks.geometry(rle)
        if found.get("bbox") is None:
            found["bbox"] = shape["bbox"]
        found["area"] = shape["area"]
    if not found.get("segmentation"):
        found.pop("segmentation", None)
    found["iscrowd"] = int(found.get("iscrowd", 0))
    return found


def _detector(path, good):
    data = read_annotations(path, path.parent, class_agnostic=False)
    return data.categories, [
        (record["image_id"], record["height"], instance.label, instance.score, _drawn(instance))
        for record in data
        for instance in record["instances"]
    ]


def _drawn(instance):
    from cuvler.coco.segmentations import compressed, polygons_rle

    stated = instance.segmentation
    rle = compressed(stated) if isinstance(stated, dict) else polygons_rle(stated, (WIDTH, HEIGHT))
    return masks.decode(rle).tolist(), list(instance.bbox or masks.geometry(rle)["bbox"])


def _evaluation(path, good):
    return evaluate_all(path, good["results"])


def _compare(path, good):
    return compare(path, good["results"], good["results"])


def _self_training(path, good):
    output = path.parent / "self_training.json"
    # A threshold that one prediction reaches, so that a previous annotation is kept.
    cutler_annotations(path, good["results"], _listing(), output, score_threshold=0.85)
    return shown(output)


def shown(output):
    content = read_json(output)
    return content["images"], [
        without_id(one) | {"category_id": 1} for one in content["annotations"]
    ]


def _report(path, good):
    listed = records.coco_images(path)
    sizes = {number: image.size for number, image in listed.items()}
    return listed, _records(records.best_records(path, sizes))


def _records(found):
    # The report draws on the opened image, which has the size of the records.
    size = WIDTH, HEIGHT
    sized = {number: [one._replace(size=size) for one in of] for number, of in found.items()}
    return {
        number: [(list(one.box()), one.score, masks.decode(one.rle()).tolist()) for one in records]
        for number, records in sized.items()
    }


def _results_evaluation(path, good):
    return evaluate_all(good["annotations"], path)


def _results_compare(path, good):
    return compare(good["annotations"], path, good["results"])


def _results_self_training(path, good):
    output = path.parent / "self_training.json"
    cutler_annotations(good["annotations"], path, _listing(), output, score_threshold=0.85)
    return shown(output)


def _results_report(path, good):
    return _records(records.best_records(path, SIZES))


def _listing():
    names = [f"{number}.jpg" for number in SIZES]
    return pd.DataFrame({"image_id": list(SIZES), "file_name": names, "shard": [0] * len(SIZES)})


READ_ANNOTATIONS = {
    "images": _images,
    "ground-truth": _ground_truth,
    "splits": _splits,
    "detector": _detector,
    "evaluation": _evaluation,
    "compare": _compare,
    "self-training": _self_training,
    "report": _report,
}
READ_RESULTS = {
    "evaluation": _results_evaluation,
    "compare": _results_compare,
    "self-training": _results_self_training,
    "report": _results_report,
}


def write(folder: Path, name: str, content) -> Path:
    """Write a file of its own folder: a text, bytes or what is written as json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def good_files(folder: Path) -> dict[str, Path]:
    """The unchanged files of both formats."""
    return {
        "annotations": write(folder / "good", "annotations", annotations()),
        "results": write(folder / "good", "results", results()),
    }


def changed(content, change):
    content = copy.deepcopy(content)
    found = change(content)
    return content if found is None or not isinstance(found, str | bytes) else found
