"""A small run of every stage: its commands, and the files that they read and write."""

import json
import os
import shutil
import signal
import sys
import tarfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE, _IMAGES = 96, 6
_TINY = (
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("SOLVER.STEPS", "(3,)", "SOLVER.WARMUP_ITERS", "2", "SOLVER.BASE_LR", "0.001"),
    *("INPUT.MIN_SIZE_TRAIN", "(48, 64)", "INPUT.MIN_SIZE_TEST", "64"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"),
    *("MODEL.FPN.OUT_CHANNELS", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
)


@dataclass(frozen=True)
class Stage:
    """A command of the run.

    Attributes:
        name: its name in the table.
        words: the words after ``cuvler``, with paths in the run's folder.
        outputs: the files that must be the same each time.
        function: what to call in place of the command.
        keep: files in the folders of the outputs that the command continues from.
        light: whether it runs without detectron2 and the files of a detector.
    """

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[[], None] | None = None
    keep: tuple[str, ...] = ()
    light: bool = False


def _training(name: str, *more: str) -> tuple[str, ...]:
    return (
        *("detector", "--annotations", "annotations.json", "--image-root", "images"),
        *("--detector-config", "demo", "--num-gpus", "0", "--workers", "0"),
        *("--output", name, *more, *_TINY),
    )


def _unpack(archive: str) -> Stage:
    def run() -> None:
        from cuvler.download import unpack

        unpack(archive, "unpacked", strip=1)

    return Stage(f"unpack {archive}", (), ("unpacked/a.bin", "unpacked/b/c.txt"), run, light=True)


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "images",
            (
                *("images", "--dataset", "d", "--image-root", "images", "--ground-truth"),
                *("truth.json", "--ids", "ground_truth", "--shards", "1"),
                *("--output", "listing.parquet"),
            ),
            ("listing.parquet",),
            light=True,
        ),
        Stage(
            "eigenvectors",
            (
                *("eigenvectors", "--listing", "listing.parquet", "--image-root", "images"),
                *("--backbone", "pixels_p16", "--shard", "0", "--num-eigenvectors", "1"),
                *("--problem", "standard", "--device", "cpu", "--output", "pixels_p16/0.zarr.zip"),
            ),
            ("pixels_p16/0.zarr.zip",),
            light=True,
        ),
        Stage(
            "pseudo-masks",
            (
                *("pseudo-masks", "--method", "votecut", "--listing", "listing.parquet"),
                *("--image-root", "images", "--shard", "0", "--workers", "1"),
                *("--eigenvectors", "pixels_p16/0.zarr.zip", "--output", "masks/0.json"),
            ),
            ("masks/0.json",),
            light=True,
        ),
        Stage(
            "annotations",
            (
                *("annotations", "--listing", "listing.parquet", "--max-failed", "1"),
                *("--output", "annotations.json", "masks"),
            ),
            ("annotations.json",),
            light=True,
        ),
        Stage("detector", _training("run"), ("run/model_final.pth",)),
        Stage(
            "detector from weights",
            _training("run2", "--weights", "weights.safetensors"),
            ("run2/model_final.pth",),
        ),
        Stage(
            "detector from legacy weights",
            _training("run3", "--weights", "legacy.pth"),
            ("run3/model_final.pth",),
        ),
        Stage(
            "detector, resumed",
            _training("resumed"),
            ("resumed/model_final.pth",),
            keep=(
                "resumed/checkpoint.pth",
                "resumed/annotations.arrow",
                "resumed/annotations.arrow.sha256",
            ),
        ),
        Stage(
            "predictions",
            (
                *("predictions", "--detector", "run", "--listing", "listing.parquet"),
                *("--image-root", "images", "--num-gpus", "0", "--batch-size", "2"),
                *("--max-failed", "1", "--output", "predictions.json"),
            ),
            ("predictions.json",),
        ),
        Stage(
            "self-training",
            (
                *("self-training", "--predictions", "predictions.json", "--listing"),
                *("listing.parquet", "--previous", "annotations.json"),
                *("--detections-per-image", "5", "--score-threshold", "0.0"),
                *("--output", "self_training.json"),
            ),
            ("self_training.json",),
        ),
        Stage(
            "evaluation",
            (
                *("evaluation", "--ground-truth", "truth.json", "--results", "predictions.json"),
                *("--output", "evaluation.json"),
            ),
            ("evaluation.json",),
        ),
        Stage(
            "evaluation of masks",
            (
                *("evaluation", "--ground-truth", "truth.json", "--results", "annotations.json"),
                *("--output", "evaluation_masks.json"),
            ),
            ("evaluation_masks.json",),
            light=True,
        ),
        Stage(
            "metrics",
            ("metrics", "--entry", "run=evaluation.json", "--output", "metrics.json"),
            ("metrics.json",),
        ),
        Stage(
            "table",
            (
                *("table", "--metrics", "coco_val=metrics.json", "--title", "coco_val=COCO"),
                *("--csv", "table.csv", "--markdown", "table.md"),
            ),
            ("table.csv", "table.md"),
        ),
        Stage(
            "model-card",
            ("model-card", "--detector", "run", "--metrics", "coco_val=metrics.json"),
            ("run/README.md",),
        ),
        *map(_unpack, ("a.zip", "a.tar", "a.tar.gz")),
    )
}


def make_inputs(folder: Path) -> None:
    """Write the images, their ground truth and archives."""
    from cuvler import masks

    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for index in range(_IMAGES):
        pixels = rng.integers(0, 60, (_SIDE, _SIDE, 3), dtype=np.uint8)
        mask = np.zeros((_SIDE, _SIDE), bool)
        top, left = rng.integers(8, 40, 2)
        mask[top : top + 40, left : left + 40] = True
        pixels[mask] += np.array([150, 120, 60], np.uint8)
        name = f"{'abcdef'[index]}.{'jpg' if index % 2 else 'png'}"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": index, "file_name": name, "height": _SIDE, "width": _SIDE})
        rle = masks.encode(mask)
        record = {"id": index + 1, "image_id": index, "category_id": 1, "iscrowd": 0}
        annotations.append({**record, "segmentation": rle, **masks.geometry(rle)})
    truth = {"images": images, "annotations": annotations}
    truth["categories"] = [{"id": 1, "name": "object"}]
    (folder / "truth.json").write_text(json.dumps(truth))
    _make_archives(folder)


def _make_archives(folder: Path) -> None:
    (folder / "top/b").mkdir(parents=True)
    (folder / "top/a.bin").write_bytes(bytes(range(256)) * 8)
    (folder / "top/b/c.txt").write_text("text " * 300)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "top").rglob("*")):
            archive.write(path, path.relative_to(folder))
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        with tarfile.open(folder / name, mode) as archive:
            archive.add(folder / "top", "top")
    shutil.rmtree(folder / "top")


def _make_weights(folder: Path) -> None:
    """Write initial weights with a digest, as if fetched."""
    import torch
    from safetensors.torch import save_file

    from cuvler.download.digests import file_sha256, record_sha256

    state = torch.load(folder / "run/model_final.pth", weights_only=True)["model"]
    save_file(state, folder / "weights.safetensors")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("weights.safetensors", "legacy.pth"):
        record_sha256(folder / name, file_sha256(folder / name))


def run(
    stage: Stage, folder: Path, *, log: Path | None = None, kill_after: float | None = None
) -> tuple[int, str, float]:
    """Run a stage in a copy of this process; return its status, its log and its seconds.

    The status is negative for a signal, as in :mod:`subprocess`.
    """
    log = log or folder.parent / "log"
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _run_here(stage, folder, log)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - start
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), seconds


def _run_here(stage: Stage, folder: Path, log: Path) -> None:
    """Run a stage in this process, and end it."""
    from cuvler.cli import main
    from cuvler.errors import CuvlerError

    status = 1
    try:
        os.chdir(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signal.alarm(300)  # seconds, for a stage that hangs
        sys.argv = ["cuvler", *stage.words]
        if stage.function is None:
            main()
        else:
            stage.function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except CuvlerError as error:
        sys.stderr.write(f"Error: {error}\n")
    except BaseException:  # noqa: BLE001  a traceback is what is looked for
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(status)


def make_run(folder: Path, stages: Iterable[Stage]) -> dict[str, float]:
    """Run stages in order; return the seconds of each.

    Raises:
        RuntimeError: a stage failed, or wrote other bytes the second time.
    """
    make_inputs(folder)
    seconds = {}
    for stage in stages:
        if stage.keep:
            _leave_checkpoint(folder, stage)
        kept = {name: (folder / name).read_bytes() for name in stage.keep}
        first: dict[str, bytes] = {}
        for _ in range(2):
            for name, content in kept.items():
                (folder / name).write_bytes(content)
            remove_outputs(stage, folder)
            status, log, seconds[stage.name] = run(stage, folder)
            if status:
                raise RuntimeError(f"{stage.name} failed in an undamaged run:\n{log}")
            found = read_outputs(stage, folder)
            if first and found != first:
                raise RuntimeError(f"{stage.name} wrote other bytes the second time")
            first = found
        for name, content in kept.items():
            (folder / name).write_bytes(content)
        if stage.name == "detector":
            _make_weights(folder)
    return seconds


def _leave_checkpoint(folder: Path, stage: Stage) -> None:
    """Train until a checkpoint is written, then stop as if killed."""

    def stopped() -> None:
        from cuvler.cli import main
        from cuvler.detector import train

        step = train.Trainer.run_step

        def run_step(trainer: train.Trainer) -> None:
            if trainer.iter == 3:
                os._exit(0)
            step(trainer)

        train.Trainer.run_step = run_step  # type: ignore[method-assign]
        main()

    run(Stage(stage.name, stage.words, (), stopped), folder)


def remove_outputs(stage: Stage, folder: Path) -> None:
    for name in stage.outputs:
        (folder / name).unlink(missing_ok=True)
    if stage.name.startswith("detector") and not stage.keep:
        shutil.rmtree(folder / Path(stage.outputs[0]).parent, ignore_errors=True)


def read_outputs(stage: Stage, folder: Path) -> dict[str, bytes]:
    """Return the outputs that exist."""
    paths = {name: folder / name for name in stage.outputs}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}
