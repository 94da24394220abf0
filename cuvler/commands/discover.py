"""``cuvler discover``: find the objects in single images."""

import logging
import shlex
from pathlib import Path
from typing import Any

import click
from PIL import Image

from cuvler.commands import options
from cuvler.commands.method_options import MethodCommand
from cuvler.commands.pictures import Pictures
from cuvler.discovery import Discovery, NoWeightsError, discover_with, load_method
from cuvler.drawing import draw_eigenvectors, draw_masks, write_png
from cuvler.eigenvectors.backbones import parse_definitions
from cuvler.files import write_json
from cuvler.image_files import ImageFile
from cuvler.masks import encode, geometry

logger = logging.getLogger(__name__)


@click.command("discover", cls=MethodCommand)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    help="A backbone to work with; repeat for several. Without any, the method's own.",
)
@options.named_paths(
    "--weights",
    "BACKBONE",
    help="A ViT's weights; those not named are fetched from the hub, once.",
)
@options.definitions()
@options.tau()
@options.device()
@options.max_pixels()
@options.output("The folder to write.", Path("discovered"))
@click.argument("images", nargs=-1, required=True, type=Path)
def command(
    method: str,
    backbones: tuple[str, ...],
    weights: tuple[tuple[str, Path], ...],
    definitions: str,
    tau: float | None,
    device: str,
    output: Path,
    images: tuple[Path, ...],
    **settings: Any,
) -> None:
    """Find the objects in IMAGES, files or folders, which are searched at any depth.

    Writes, into the output folder, NAME.masks.png (the masks, with scores but for MaskCut),
    NAME.eigenvectors.png (one map a backbone, or a cut) and NAME.json (COCO annotations).
    """
    pictures = Pictures(images, output)
    try:
        chosen, loaded = load_method(
            method,
            settings,
            backbones=backbones or None,
            weights=dict(weights),
            device=device,
            definitions=parse_definitions(definitions),
        )
    except NoWeightsError as error:
        raise in_options(error, definitions) from error
    for file, image in pictures:
        found = discover_with(image, chosen, loaded, tau=tau)
        # Scores that are all the same say nothing, and hide a part of the picture.
        scores = [mask.score for mask in found.masks] if chosen.scored else None
        with pictures.writing():
            _write(output, file, image, found, scores)
            drawn = output / f"{file.stem}.masks.png"
            logger.info("%s: objects found: %d, drawn in %s", file.path, len(found.masks), drawn)
    pictures.require_all()


def in_options(error: NoWeightsError, definitions: str) -> NoWeightsError:
    """Return the error with the ways out as options and commands to paste.

    Args:
        error: of the command.
        definitions: the backbones' definitions that the command was given.
    """
    has_own = definitions != options.NO_DEFINITIONS
    given = f" --definitions {shlex.quote(definitions)}" if has_own else ""
    return error.spelled(
        give=" ".join(f"--weights {name}=FILE" for name in error.missing),
        fetch="\n    ".join(
            f"cuvler weights --backbone {name}{given} --output {file}"
            for name, file in error.missing.items()
        ),
        instead=" ".join(f"--backbone {name}" for name in error.instead),
    )


def _write(
    output: Path, file: ImageFile, image: Image.Image, found: Discovery, scores: list[float] | None
) -> None:
    masks = draw_masks(image, [mask.mask for mask in found.masks], scores)
    write_png(masks, output / f"{file.stem}.masks.png")
    if found.eigenvectors:
        sheet = draw_eigenvectors(image, found.eigenvectors)
        write_png(sheet, output / f"{file.stem}.eigenvectors.png")
    write_json(output / f"{file.stem}.json", coco(file.name, image.size, found))


def coco(file_name: str, size: tuple[int, int], found: Discovery) -> dict[str, object]:
    """Give what was found in one image, (width, height) in pixels, as a COCO json."""
    annotations = []
    for number, mask in enumerate(found.masks, start=1):
        rle = encode(mask.mask)
        record = {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "score": mask.score}
        annotations.append(record | {"segmentation": rle} | geometry(rle))
    return {
        "images": [{"id": 1, "file_name": file_name, "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }
