"""``cuvler detector``: train a detector on annotations."""

import os
from pathlib import Path

import click

from cuvler.commands import options


@click.command("detector", context_settings={"ignore_unknown_options": True})
@click.option("--annotations", type=Path, required=True, help="COCO json to train on.")
@options.image_root()
@options.detector_config("votecut_cad, cutler_cascade, demo ... or a .yaml.", required=True)
@click.option(
    "--weights", type=Path, help="Initial weights (.pth, .pkl, .safetensors).  [default: random]"
)
@options.unpickle_sha256()
@options.num_gpus("GPUs of each machine; 0 is the CPU.  [default: one if available]")
@options.workers("Data-loading processes per GPU.", 4)
@click.option(
    "--evaluate",
    type=(Path, Path),
    metavar="GROUND_TRUTH IMAGE_ROOT",
    help="Evaluate during training, every TEST.EVAL_PERIOD iterations: COCO json, and the folder "
    "that its file names are relative to.",
)
@options.seed("Random seed of the order of images, copy-paste and new layers.")
@options.max_pixels()
@options.allow_outside()
@options.output("The folder to write.")
@click.argument("overrides", nargs=-1, metavar="[KEY VALUE]...")
def command(
    annotations: Path,
    image_root: Path,
    detector_config: str,
    weights: Path | None,
    unpickle_sha256: str,
    num_gpus: int | None,
    workers: int,
    evaluate: tuple[Path, Path] | None,
    seed: int,
    output: Path,
    overrides: tuple[str, ...],
) -> None:
    """Train a detector; an interrupted training resumes from its last checkpoint.

    KEY VALUE pairs are detectron2 settings that override the detector config, such as
    SOLVER.MAX_ITER 40000. If they change the batch size, the learning rate and the schedule are
    scaled with it.

    On several machines with a shared file system for the output: one task per machine with
    srun --ntasks-per-node 1 --kill-on-bad-exit cuvler detector ..., or one process per GPU with
    torchrun --nnodes 2 --nproc-per-node 8 --no-python cuvler detector ...
    """
    from cuvler.detector.config import load_detector_config
    from cuvler.detector.processes import find_place
    from cuvler.detector.train import train_detector
    from cuvler.gpus import hold_gpus

    for word in overrides:
        # Click passes unknown options on as overrides, because a value can be negative: -1.
        if word.startswith("--"):
            raise click.NoSuchOption(word.partition("=")[0])
    place = find_place(os.environ)
    if num_gpus is None:
        num_gpus = place.default_gpus()
    machines = place.machines(num_gpus)
    cfg = load_detector_config(
        detector_config, num_gpus=num_gpus, machines=machines, overrides=overrides
    )
    cfg.MODEL.WEIGHTS = str(weights) if weights else ""
    cfg.MODEL.UNPICKLE_SHA256 = unpickle_sha256 or cfg.MODEL.UNPICKLE_SHA256
    cfg.DATALOADER.NUM_WORKERS = workers
    # torchrun starts one command per GPU and has assigned the GPUs already.
    with hold_gpus(0 if place.local_size else num_gpus):
        train_detector(
            cfg,
            annotations,
            image_root,
            output,
            num_gpus=num_gpus,
            seed=seed,
            place=place,
            evaluate=evaluate,
        )
