"""``cuvler predict``: run a trained detector on single images."""

import logging
from pathlib import Path

import click

from cuvler.commands.pictures import Pictures, pictures

log = logging.getLogger(__name__)


@click.command("predict")
@click.argument("images", nargs=-1, required=True, type=Path, callback=pictures)
@click.option("--detector", type=Path, required=True, help="A detector's folder, or weights.")
@click.option(
    "--detector-config",
    help="cutler_mask_rcnn, semi_supervised_10 ... or a .yaml, of weights alone.  "
    "[default: votecut_cad]",
)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    default=0.35,
    show_default=True,
    help="Leave out predictions under it.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--tta", is_flag=True, help="Average over sizes and mirror images.")
@click.option(
    "--unpickle-sha256",
    default="",
    help="Weights that can only be read by running code: unpickle them if this is their sha256.",
)
@click.option("--output", type=Path, default=Path("predicted"), show_default=True)
def command(
    images: Pictures,
    detector: Path,
    detector_config: str | None,
    score_threshold: float,
    device: str,
    tta: bool,
    unpickle_sha256: str,
    output: Path,
) -> None:
    """Draw what a detector finds over each of IMAGES, files or folders of them.

    Writes, into the output folder, NAME.masks.png (the masks with their scores) for each image,
    and predictions.json (COCO annotations).
    """
    from cuvler.detector import load_detector
    from cuvler.drawing import draw_masks
    from cuvler.files import atomic_path, write_json
    from cuvler.predictions import as_coco_annotations

    model = load_detector(
        detector,
        device=device,
        detector_config=detector_config,
        tta=tta,
        unpickle_sha256=unpickle_sha256,
    )
    found = []
    for path, image in images:
        instances = model(image)
        instances = instances[instances.scores >= score_threshold]
        found.append((path.name, image.size, instances))
        with atomic_path(output / f"{path.stem}.masks.png") as temporary:
            picture = draw_masks(
                image, list(instances.pred_masks.numpy()), instances.scores.tolist()
            )
            picture.save(temporary, format="PNG")
        log.info("%s: %d objects", path, len(instances))
    write_json(output / "predictions.json", as_coco_annotations(found, model.categories))
    images.require_all()
