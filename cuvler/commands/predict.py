"""``cuvler predict``: run a trained detector on single images."""

import logging
import math
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.commands.pictures import Pictures

logger = logging.getLogger(__name__)


@click.command("predict")
@click.argument("images", nargs=-1, required=True, type=Path)
@options.detector()
@options.detector_config()
@options.score_threshold(0.35)
@options.device()
@options.tta()
@options.unpickle_sha256()
@options.max_pixels()
@options.output("The folder to write.", Path("predicted"))
def command(
    images: tuple[Path, ...],
    detector: Path,
    detector_config: str | None,
    score_threshold: float,
    device: str,
    tta: bool,
    unpickle_sha256: str,
    output: Path,
) -> None:
    """Detect objects in IMAGES, files or folders (searched at any depth), and draw them.

    Writes NAME.masks.png (masks and scores) for each image, and predictions.json (COCO
    annotations), to the output folder.
    """
    from cuvler.detector import load_detector
    from cuvler.detector.inference import pasted, prepare_image
    from cuvler.drawing import draw_masks, write_png
    from cuvler.files import write_json
    from cuvler.predictions import as_coco_annotations

    pictures = Pictures(images, output)
    model = load_detector(
        detector,
        device=device,
        detector_config=detector_config,
        tta=tta,
        unpickle_sha256=unpickle_sha256,
    )
    found = []
    for file, image in pictures:
        every = model.detect([prepare_image(image, model.input_sides)])[0]
        instances = every[every.scores >= score_threshold]
        found.append((file.name, image.size, instances))
        with pictures.writing():
            masks = list(pasted(instances).pred_masks.numpy())
            drawn = draw_masks(image, masks, instances.scores.tolist())
            write_png(drawn, output / f"{file.stem}.masks.png")
        highest = float(every.scores.max()) if len(every) else None
        logger.info("%s: %s", file.path, _count(len(instances), highest, score_threshold))
    write_json(output / "predictions.json", as_coco_annotations(found, model.categories))
    pictures.require_all()


def _count(number: int, highest: float | None, threshold: float) -> str:
    if number:
        return f"objects found: {number}"
    if highest is None:
        return "objects found: 0, at any score"
    shown = math.floor(1000 * highest) / 1000  # rounded up it could reach the threshold
    return (
        f"objects found: 0; the highest score is {shown:g}, below --score-threshold {threshold:g}"
    )
