"""Time COCO evaluation, ours against pycocotools: ``python benchmarks/evaluation.py``.

It measures processor time of all threads, which other work on the machine affects least, and wall
time. The results are synthetic and of the size of COCO val2017: 5,000 images with 100 detections
each. Detections are ellipses, some of them at objects; masks are RLE of 480 x 640 pixels.
"""

import contextlib
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cuvler.evaluation import evaluate
from cuvler.evaluation.coco_files import IouType
from cuvler.masks import encode, geometry

HEIGHT, WIDTH, OBJECTS = 480, 640, 7


def ellipses(generator: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Return records of random ellipses."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    records = []
    for _ in range(count):
        center = generator.uniform((0, 0), (HEIGHT, WIDTH))
        radii = generator.uniform(8, 120, 2)
        mask = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 <= 1
        rle = encode(mask)
        records.append({"segmentation": rle, "category_id": 1, **geometry(rle)})
    return records


def make(images: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return ground truth and results of ``images`` images, sampled from a pool of shapes."""
    generator = np.random.default_rng(0)
    pool = ellipses(generator, 500)
    annotations: list[dict[str, Any]] = []
    results = []
    for image_id in range(1, images + 1):
        objects = generator.choice(len(pool), OBJECTS, replace=False)
        for index in objects:
            record = {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0}
            annotations.append(record | pool[index])
        near = generator.choice(objects, detections // 4)
        elsewhere = generator.choice(len(pool), detections - len(near))
        for index in np.concatenate([near, elsewhere]):
            results.append({"image_id": image_id, "score": generator.random(), **pool[index]})
    truth = {
        "images": [{"id": i + 1, "height": HEIGHT, "width": WIDTH} for i in range(images)],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }
    return truth, results


def pycocotools_ap(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> float:
    """Return pycocotools' AP in percent."""
    unwanted = "bbox" if iou_type == "segm" else "segmentation"
    copies = [{k: v for k, v in r.items() if k not in (unwanted, "area")} for r in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(copies), iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[0]) * 100


def our_ap(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: IouType) -> float:
    """Return cuvler's AP in percent."""
    ap = evaluate(truth, results, iou_type=iou_type)["AP"]
    assert ap is not None
    return ap


def timed(score: Callable[[], float]) -> tuple[float, float, float]:
    """Return the processor time and wall time in seconds, and the AP in percent."""
    clock, processor = time.perf_counter(), time.process_time()
    ap = score()
    return time.process_time() - processor, time.perf_counter() - clock, ap


@click.command()
@click.option("--images", default=5000, show_default=True)
@click.option("--detections", default=100, show_default=True)
def main(images: int, detections: int) -> None:
    """Print one Markdown table."""
    truth, results = make(images, detections)
    evaluate(truth, results[:1])  # warm-up: loads the libraries
    print(f"{images} images, {len(truth['annotations'])} objects, {len(results)} detections\n")
    print("| evaluated | cuvler | pycocotools | speed-up | wall-time speed-up | AP difference |")
    print("|---|---|---|---|---|---|")
    iou_types: tuple[IouType, ...] = ("bbox", "segm")
    for iou_type in iou_types:
        ours = timed(partial(our_ap, truth, results, iou_type))
        theirs = timed(partial(pycocotools_ap, truth, results, iou_type))
        print(
            f"| {iou_type} | {ours[0]:.1f} s | {theirs[0]:.1f} s | {theirs[0] / ours[0]:.1f} "
            f"| {theirs[1] / ours[1]:.1f} | {abs(ours[2] - theirs[2]):.0e} |"
        )


if __name__ == "__main__":
    main()
