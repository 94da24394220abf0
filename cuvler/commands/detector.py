"""``cuvler detector``: train a detector on annotations."""

import os
from pathlib import Path

import click

from cuvler.commands import options


@click.command("detector", context_settings={"ignore_unknown_options": True})
@click.option("--annotations", type=Path, required=True, help="COCO json to learn from.")
@options.image_root()
@options.detector_config("votecut_cad, cutler_cascade, demo ... or a .yaml.", required=True)
@click.option(
    "--weights", type=Path, help="Initial weights (.pth, .pkl, .safetensors); random without."
)
@options.unpickle_sha256()
@options.num_gpus("GPUs of each machine; 0 is the CPU.  [default: one if there is one]")
@options.workers("Data-loading processes for each GPU.", 4)
@click.option(
    "--evaluate",
    type=(Path, Path),
    metavar="GROUND_TRUTH IMAGE_ROOT",
    help="COCO json, and folder its file names start from: score the detector on it while it "
    "trains, every TEST.EVAL_PERIOD iterations.",
)
@options.seed("Of everything random: the order of images, copy-paste, new layers.")
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
    """Train a detector; go on where a previous run of the same training was stopped.

    KEY VALUE pairs are detectron2 settings over those of the detector config:
    SOLVER.MAX_ITER 40000. Where they change the batch, learning rate and schedule are scaled
    with it.

    On several machines, with the output on a file system they share: one task a machine by
    srun --ntasks-per-node 1 --kill-on-bad-exit cuvler detector ..., or one process a GPU by
    torchrun --nnodes 2 --nproc-per-node 8 --no-python cuvler detector ...
    """
    from cuvler.detector.config import load_detector_config
    from cuvler.detector.processes import find_place
    from cuvler.detector.train import train_detector
    from cuvler.gpus import hold_gpus

    for word in overrides:
        # Taken for an override, as a value may begin with a dash: -1.
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
    # torchrun starts a command for each GPU; they are divided already.
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
