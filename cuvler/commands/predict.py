"""``cuvler predict``: run a trained detector on single images."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.commands.pictures import Pictures, pictures

logger = logging.getLogger(__name__)


@click.command("predict")
@click.argument("images", nargs=-1, required=True, type=Path, callback=pictures)
@options.detector()
@options.detector_config()
@options.score_threshold(0.35)
@options.device()
@options.tta()
@options.unpickle_sha256()
@options.output("The folder to write.", Path("predicted"))
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
    """Detect objects in IMAGES, files or folders, and draw them.

    Writes NAME.masks.png (masks and scores) for each image, and predictions.json (COCO
    annotations), to the output folder.
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
        logger.info("%s: %d objects", path, len(instances))
    write_json(output / "predictions.json", as_coco_annotations(found, model.categories))
    images.require_all()
