"""Time COCO evaluation and measure its memory, ours and three libraries' on the same files.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --images 80000 --evaluator cuvler --evaluator hotcoco

The results are synthetic, by default of the size of COCO val2017: 5,000 images with 100 detections
each. Detections are ellipses, a quarter of them objects; masks are RLE of 480 x 640 pixels. Scores
have three digits, so that many are equal, and one object in twenty is a crowd.

Every evaluator reads the files and scores them in a process of its own. Times are those of all
threads, which other work on the machine affects least, and of the clock. faster-coco-eval is not a
dependency of cuvler; without it, its rows are left out. At 80,000 images the libraries
that hold records as Python objects need tens of gigabytes. Needs about 0.5 kB of disk a detection.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from cuvler.evaluation.metrics import METRICS
from cuvler.masks import encode, geometry

HEIGHT, WIDTH, OBJECTS = 480, 640, 7
_SHAPES = 500
EVALUATORS = ("cuvler", "pycocotools", "faster-coco-eval", "hotcoco")
# The places of METRICS in the libraries' `stats`.
_STATS = (0, 1, 2, 3, 4, 5, 6, 7, 8)
_BOX = re.compile(r', "bbox": \[[^]]*\]')


def ellipses(generator: np.random.Generator) -> list[tuple[str, float]]:
    """Return the JSON of random ellipses, without the braces, and their areas."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    found = []
    for _ in range(_SHAPES):
        center = generator.uniform((0, 0), (HEIGHT, WIDTH))
        radii = generator.uniform(8, 120, 2)
        mask = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 <= 1
        rle = encode(mask)
        shape = geometry(rle)
        content = {"category_id": 1, "segmentation": rle, "bbox": shape["bbox"]}
        found.append((json.dumps(content)[1:-1], shape["area"]))
    return found


def write_files(folder: Path, images: int, detections: int) -> None:
    """Write ``truth.json`` and ``results.json``; both sample the shapes of one pool.

    ``masks.json`` has the results without boxes: where there is a box, hotcoco takes its area for
    that of the mask.
    """
    generator = np.random.default_rng(0)
    shapes = ellipses(generator)
    number = 0
    with (
        (folder / "truth.json").open("w", encoding="utf-8") as truth,
        (folder / "results.json").open("w", encoding="utf-8") as results,
        (folder / "masks.json").open("w", encoding="utf-8") as masks,
    ):
        listed = [{"id": i + 1, "height": HEIGHT, "width": WIDTH} for i in range(images)]
        head = {"images": listed, "categories": [{"id": 1, "name": "object"}]}
        truth.write(json.dumps(head)[:-1] + ', "annotations": [')
        for image_id in range(1, images + 1):
            objects = generator.choice(_SHAPES, OBJECTS, replace=False)
            lines = []
            for place in objects.tolist():
                number += 1
                text, area = shapes[place]
                ids = f'"id": {number}, "image_id": {image_id}, "iscrowd": {int(number % 20 == 0)}'
                lines.append(f'{{{ids}, "area": {area}, {text}}}')
            truth.write((",\n" if image_id > 1 else "") + ",\n".join(lines))
            near = generator.choice(objects, detections // 4)
            rest = generator.integers(0, _SHAPES, detections - len(near))
            scores = generator.integers(0, 1000, detections) / 1000
            lines = [
                f'{{"image_id": {image_id}, "score": {score}, {shapes[place][0]}}}'
                for place, score in zip([*near.tolist(), *rest.tolist()], scores, strict=True)
            ]
            text = (",\n" if image_id > 1 else "[") + ",\n".join(lines)
            results.write(text)
            masks.write(_BOX.sub("", text))
        truth.write("]}")
        results.write("]")
        masks.write("]")


def score(evaluator: str, folder: Path, iou_type: str) -> list[float]:
    """Return the nine metrics in percent."""
    truth, results = str(folder / "truth.json"), str(folder / "results.json")
    if evaluator == "cuvler":
        from cuvler.evaluation import evaluate

        found = evaluate(truth, results, iou_type="segm" if iou_type == "segm" else "bbox")
        return [value for name in METRICS if (value := found[name]) is not None]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _library(evaluator, truth, results, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * float(evaluation.stats[place]) for place in _STATS]


def _library(evaluator: str, truth: str, results: str, iou_type: str) -> Any:
    """Return a library's evaluator of pycocotools' interface."""
    if evaluator == "hotcoco":
        import hotcoco

        objects = hotcoco.COCO(truth)
        found = results if iou_type == "bbox" else str(Path(results).with_name("masks.json"))
        return hotcoco.COCOeval(objects, objects.load_res(found), iou_type)
    # As in detectron2: without a box, a result has the area of its mask.
    unwanted = "bbox" if iou_type == "segm" else "segmentation"
    records = json.loads(Path(results).read_text(encoding="utf-8"))
    for record in records:
        del record[unwanted]
    if evaluator == "faster-coco-eval":
        import faster_coco_eval

        objects = faster_coco_eval.COCO(truth)
        return faster_coco_eval.COCOeval_faster(
            objects, objects.loadRes(records), iou_type, print_function=_silent
        )
    from pycocotools import coco, cocoeval

    objects = coco.COCO(truth)
    return cocoeval.COCOeval(objects, objects.loadRes(records), iou_type)


def _silent(*_: object) -> None:
    """Print nothing."""


@dataclass(frozen=True)
class Measured:
    """Processor and wall time in seconds, peak memory in MB, and the metrics."""

    processor: float
    wall: float
    peak: float
    metrics: list[float]


def measure(evaluator: str, folder: Path, iou_type: str) -> Measured:
    """Score in a new process."""
    output = folder / "scores.json"
    words = [sys.executable, __file__, "--run", evaluator, iou_type, "--folder", str(folder)]
    start = time.perf_counter()
    process = os.posix_spawn(sys.executable, words, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise click.ClickException(f"{evaluator} failed")
    wall = time.perf_counter() - start
    metrics = json.loads(output.read_text(encoding="utf-8"))
    return Measured(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, metrics)


def _installed(evaluator: str) -> bool:
    return find_spec(evaluator.replace("-", "_")) is not None


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=given) as temporary:
        yield Path(temporary)


@click.command()
@click.option("--images", default=5000, show_default=True)
@click.option("--detections", default=100, show_default=True)
@click.option("--evaluator", "evaluators", multiple=True, type=click.Choice(EVALUATORS))
@click.option("--iou-type", "iou_types", multiple=True, default=["bbox", "segm"])
@click.option("--folder", type=click.Path(path_type=Path), help="Folder for temporary files.")
@click.option("--run", nargs=2, hidden=True, help="Score the files in the folder and exit.")
def main(
    images: int,
    detections: int,
    evaluators: tuple[str, ...],
    iou_types: tuple[str, ...],
    folder: Path | None,
    run: tuple[str, str] | None,
) -> None:
    """Print one Markdown table."""
    if run:
        assert folder is not None
        scores = score(run[0], folder, run[1])
        (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
        return
    with _folder(folder) as there:
        write_files(there, images, detections)
        print(f"{images} images, {images * OBJECTS} objects, {images * detections} detections\n")
        print("| evaluated | by | processor | wall | peak memory | AP | largest difference |")
        print("|---|---|---|---|---|---|---|")
        for iou_type in iou_types:
            first: list[float] = []
            for evaluator in evaluators or filter(_installed, EVALUATORS):
                found = measure(evaluator, there, iou_type)
                first = first or found.metrics
                apart = max(abs(a - b) for a, b in zip(first, found.metrics, strict=True))
                print(
                    f"| {iou_type} | {evaluator} | {found.processor:.1f} s | {found.wall:.1f} s "
                    f"| {found.peak:.0f} MB | {found.metrics[0]:.3f} | {apart:.0e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
