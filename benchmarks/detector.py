"""Time the detector's training, data loading and inference against detectron2's own loops.

The same model, settings and images are measured in one run. The variants alternate every second or
two, so that other work on the machine slows all of them equally.

- Training, iterations/s: detectron2's ``DefaultTrainer``; ours doing the same work (no soft
  targets, DropLoss or copy-paste); ours with the whole detector config, which is more work.
- Loading, images/s of one process that reads and augments training images; this limits a fast GPU.
- Inference, images/s from image files to COCO results: a loop over ``DefaultPredictor``, and
  ``cuvler predictions``.

``python benchmarks/detector.py`` uses the demo's small detector on a CPU. The published
config on a GPU in mixed precision:

    python benchmarks/detector.py --detector-config votecut_cad --num-gpus 1 --size 800 --batch 8 \
        --workers 8 --annotations instances_val2017.json --image-root val2017
"""

import contextlib
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data.datasets import register_coco_instances
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor, DefaultTrainer, TrainerBase
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils.events import EventStorage

import cuvler.detector  # noqa: F401 (registers the heads)
from cuvler.detector.checkpoints import MODEL, save_model
from cuvler.detector.config import load_detector_config
from cuvler.detector.data import TrainingBatches
from cuvler.detector.train import Trainer
from cuvler.detector.training_annotations import read_annotations
from cuvler.devices import wait_for_gpu
from cuvler.files import read_json
from cuvler.predictions import Options, predict_dataset

Data = tuple[Path, Path]  # Annotations and image root.

# Iterations of one variant before the next one.
TURN = 5
THEIR_HEADS = {
    "PseudoLabelCascadeROIHeads": "CascadeROIHeads",
    "PseudoLabelStandardROIHeads": "StandardROIHeads",
}


class Turns:
    """A training that runs ``TURN`` iterations per call."""

    def __init__(self, trainer: TrainerBase) -> None:
        self.trainer = trainer
        self.done = trainer.iter = trainer.start_iter = 0
        with EventStorage(0) as trainer.storage:
            trainer.before_train()

    def __call__(self) -> float:
        """Run the next iterations and return iterations/s."""
        trainer = self.trainer
        start = time.perf_counter()
        with trainer.storage:
            for iteration in range(self.done, self.done + TURN):
                trainer.iter = iteration
                trainer.before_step()
                trainer.run_step()
                trainer.after_step()
        wait_for_gpu()
        self.done += TURN
        return TURN / (time.perf_counter() - start)


def make_data(folder: Path, count: int) -> Data:
    """Generate scenes and return their annotations and image root."""
    numbers = ["--train", str(count), "--val", "1"]
    command = [sys.executable, "-m", "demo_scenes", "--output", str(folder / "demo"), *numbers]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    return folder / "demo/train/annotations.json", folder / "demo/train/images"


def one_category(annotations: Path, folder: Path, limit: int) -> Path:
    """Write the annotations of the first images with a single category."""
    content = read_json(annotations)
    content["images"] = content["images"][:limit]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    content["categories"] = [{"id": 1, "name": "object"}]
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def settings(detector_config: str, num_gpus: int, size: int, batch: int, workers: int) -> CfgNode:
    """Return a detector config for one process, at a single image size unless it is 0."""
    overrides = ["SOLVER.IMS_PER_BATCH", str(batch), "SOLVER.CHECKPOINT_PERIOD", "1000000"]
    overrides += ["TEST.PRECISE_BN.ENABLED", "False", "SOLVER.STEPS", "()"]
    if size:
        overrides += ["INPUT.MIN_SIZE_TRAIN", f"({size},)", "INPUT.MIN_SIZE_TEST", str(size)]
    cfg = load_detector_config(detector_config, num_gpus=num_gpus, overrides=overrides)
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.MODEL.WEIGHTS = ""
    cfg.SEED = 0
    return cfg


def detectron2_trainer(cfg: CfgNode, folder: Path) -> DefaultTrainer:
    """Return detectron2's trainer with its own heads on the registered data set."""
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.NAME = THEIR_HEADS[cfg.MODEL.ROI_HEADS.NAME]
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("benchmark",), ()
    cfg.OUTPUT_DIR = str(folder)
    folder.mkdir()
    return DefaultTrainer(cfg)


def our_trainer(cfg: CfgNode, folder: Path, data: Data) -> Trainer:
    """Return our trainer."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    return Trainer(cfg, read_annotations(*data), "benchmark")


def without_extras(cfg: CfgNode) -> CfgNode:
    """Return the config without soft targets, DropLoss and copy-paste."""
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.SOFT_TARGETS = cfg.MODEL.ROI_HEADS.DROP_LOSS = False
    cfg.INPUT.COPY_PASTE.ENABLED = False
    return cfg


def load_by_detectron2(cfg: CfgNode) -> float:
    """Return the images/s of detectron2's mapper."""
    records = DatasetCatalog.get("benchmark")
    mapper = DatasetMapper(cfg, is_train=True)
    start = time.perf_counter()
    for record in records:
        mapper(record)
    return float(len(records) / (time.perf_counter() - start))


def load_by_us(cfg: CfgNode, data: Data) -> float:
    """Return the images/s of our batches."""
    records = read_annotations(*data)
    batches = TrainingBatches(records, cfg, cfg.SEED)
    size: int = cfg.SOLVER.IMS_PER_BATCH
    start = time.perf_counter()
    for number in range(len(records) // size):
        batches[number, list(range(number * size, (number + 1) * size))]
    return len(records) // size * size / (time.perf_counter() - start)


def predict_by_detectron2(
    cfg: CfgNode, weights: Path, annotations: Path, image_root: Path
) -> float:
    """Return the images/s of a loop over ``DefaultPredictor``, writing a results file."""
    images = read_json(annotations)["images"]
    start = time.perf_counter()
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = str(weights)
    predictor = DefaultPredictor(cfg)
    results: list[Any] = []
    for image in images:
        found = predictor(read_image(str(image_root / image["file_name"]), "BGR"))["instances"].to(
            "cpu"
        )
        results += instances_to_coco_json(found, image["id"])
    (weights.parent / "theirs.json").write_text(json.dumps(results))
    return len(images) / (time.perf_counter() - start)


def predict_by_us(
    cfg: CfgNode, weights: Path, annotations: Path, image_root: Path, options: Options
) -> float:
    """Return the images/s of ``cuvler predictions``, writing a results file."""
    start = time.perf_counter()
    devices = ["cuda:0" if cfg.MODEL.DEVICE == "cuda" else "cpu"]
    summary = predict_dataset(
        weights.parent,
        annotations,
        image_root,
        weights.parent / "ours.json",
        devices=devices,
        options=options,
    )
    return summary.images / (time.perf_counter() - start)


def medians(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run the variants alternately and return their medians, without the first round."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, measure) in itertools.product(range(rounds + 1), ways.items()):
        rates[name].append(measure())
        click.echo(f"{name}: {rates[name][-1]:.2f}", err=True)
    return {name: statistics.median(values[1:]) for name, values in rates.items()}


def train(cfg: CfgNode, folder: Path, data: Data, rounds: int) -> dict[str, float]:
    """Return the iterations/s of the trainers, and save our model to the folder."""
    ours = our_trainer(cfg, folder / "ours", data)
    trainers = {
        "training, detectron2's `DefaultTrainer`": detectron2_trainer(cfg, folder / "theirs"),
        "training, ours, the same work": our_trainer(without_extras(cfg), folder / "plain", data),
        "training, ours, the whole config": ours,
    }
    rates = medians({name: Turns(trainer) for name, trainer in trainers.items()}, 4 * rounds)
    save_model(ours.model, folder / "ours" / MODEL)
    return rates


def load(cfg: CfgNode, data: Data, rounds: int) -> dict[str, float]:
    """Return the images/s of data loading in one process."""
    ways: dict[str, Callable[[], float]] = {
        "loading, detectron2's `DatasetMapper`": lambda: load_by_detectron2(cfg),
        "loading, ours, the same work": lambda: load_by_us(without_extras(cfg), data),
        "loading, ours, the whole config": lambda: load_by_us(cfg, data),
    }
    return medians(ways, 2 * rounds)


def predict(cfg: CfgNode, weights: Path, data: Data, workers: int, rounds: int) -> dict[str, float]:
    """Return the images/s of inference."""
    options = Options(batch_size=8, workers=workers)
    ways: dict[str, Callable[[], float]] = {
        "inference, loop over `DefaultPredictor`": lambda: predict_by_detectron2(
            cfg, weights, *data
        ),
        "inference, `cuvler predictions`": lambda: predict_by_us(cfg, weights, *data, options),
    }
    return medians(ways, rounds)


def print_rows(unit: str, rates: dict[str, float]) -> None:
    """Print rows of the table with the ratio to the first row, detectron2."""
    reference = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"| {name} | {rate:.2f} {unit}/s | {rate / reference:.2f} |")


@click.command()
@click.option("--detector-config", default="demo", show_default=True)
@click.option("--annotations", type=Path, help="COCO json; default: generated scenes.")
@click.option("--image-root", type=Path, help="Image root.")
@click.option("--images", default=48, show_default=True, help="Largest number of images.")
@click.option("--size", default=0, help="Shortest side; 0: as in the detector config.")
@click.option("--batch", default=4, show_default=True, help="Images per iteration.")
@click.option("--rounds", default=5, show_default=True, help="Number of measurements.")
@click.option("--workers", default=1, show_default=True, help="Data loading processes.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch on the CPU.")
@click.option("--num-gpus", type=click.IntRange(0, 1), default=0, show_default=True)
def main(
    detector_config: str,
    annotations: Path | None,
    image_root: Path | None,
    images: int,
    size: int,
    batch: int,
    rounds: int,
    workers: int,
    threads: int,
    num_gpus: int,
) -> None:
    """Print one Markdown table."""
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        if annotations is None or image_root is None:
            annotations, image_root = make_data(folder, images)
        data = one_category(annotations, folder, images), image_root.absolute()
        register_coco_instances("benchmark", {}, *map(os.fspath, data))
        cfg = settings(detector_config, num_gpus, size, batch, workers)
        trained = train(cfg, folder, data, rounds)
        loaded = load(cfg, data, rounds)
        predicted = predict(cfg, folder / "ours" / MODEL, data, workers, rounds)
    print(f"{detector_config}, batches of {batch}, {images} images, medians of turns\n")
    print("| variant | rate | ratio to detectron2 |")
    print("|---|---|---|")
    print_rows("iterations", trained)
    print_rows("images", loaded)
    print_rows("images", predicted)


if __name__ == "__main__":
    main()
