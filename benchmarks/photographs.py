"""Time training, extraction and predictions on photographs of 12 and 50 megapixels.

The demo's scenes are enlarged, with noise, ragged masks at full size and EXIF orientations, as
photographs of phones. The plain way decodes whole images, masks at full size, and pastes detected
masks into images of that size; it does so in the same run.

- Training: seconds of an iteration of the demo's detector with one data-loading process, and the
  share of it that waits for data; milliseconds to load one sample of the published detector config.
- Extraction: milliseconds to open and prepare one image for a ViT.
- Predictions: milliseconds to open one image at the published test size, and to encode 100 masks.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from detector import make_data, our_trainer, settings
from detectron2.config import CfgNode
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from numpy.typing import NDArray
from PIL import ExifTags, Image

from cuvler import masks
from cuvler.detector import data
from cuvler.detector.inference import open_input, prepare_image
from cuvler.detector.training_annotations import read_annotations
from cuvler.detector.training_file import Record
from cuvler.eigenvectors.backbones import RESAMPLING
from cuvler.eigenvectors.vit import prepare_image as prepare_for_vit
from cuvler.files import read_json
from cuvler.images import open_image, open_resized
from cuvler.predictions.pasting import paste

_VIT_SIZE = 480
_SHORTEST, _LONGEST = 800, 1333
# Stored sideways or upside down, as a phone was held.
_HELD = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def make_photographs(scenes: tuple[Path, Path], folder: Path, megapixels: float) -> Path:
    """Enlarge scenes to photographs in a folder, and return the path of their annotations."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    content = read_json(scenes[0])
    for index, image in enumerate(content["images"]):
        factor = (megapixels * 1e6 / (image["width"] * image["height"])) ** 0.5
        size = (8 * int(image["width"] * factor / 8), 8 * int(image["height"] * factor / 8))
        picture = Image.open(scenes[1] / image["file_name"])
        image["file_name"] = f"{index}.jpg"
        _save(_noisy(picture, size, rng), folder / image["file_name"], list(_HELD)[index % 4])
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                scale = np.array(size * 2) / ([image["width"], image["height"]] * 2)
                annotation["bbox"] = (np.array(annotation["bbox"]) * scale).tolist()
                mask = masks.decode(annotation["segmentation"])
                annotation["segmentation"] = masks.encode(_ragged(mask, size, rng))
        image["width"], image["height"] = size
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def _noisy(picture: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    tile = rng.normal(0, 5, (512, 512, 3)).astype(np.int16)
    noise = np.tile(tile, (size[1] // 512 + 1, size[0] // 512 + 1, 1))[: size[1], : size[0]]
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def _ragged(
    mask: NDArray[np.bool_], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.bool_]:
    smooth = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    rough = rng.random((size[1] // 8, size[0] // 8), dtype=np.float32)
    ragged: NDArray[np.bool_] = smooth > 0.3 + 0.4 * cv2.resize(rough, size)
    return ragged


def _save(picture: Image.Image, path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    held = _HELD[orientation]
    stored = picture if held is None else picture.transpose(held)
    stored.save(path, quality=92, exif=exif)


def plain_image(record: Record, view: data.View, _decoded: object) -> Image.Image:
    """Decode the whole image and resize it."""
    image = open_image(record["file_name"], (record["width"], record["height"]))
    return image.resize((view.width, view.height), Image.Resampling.BILINEAR)


def plain_mask(rle: masks.Rle, height: int, width: int) -> NDArray[np.bool_]:
    """Decode the mask at its own size and resize it."""
    return masks.resize(masks.decode(rle), height, width)


@contextmanager
def plain_loading() -> Iterator[None]:
    """Load training samples in the plain way."""
    ours = data._read_image, masks.decode_resized
    data._read_image, masks.decode_resized = plain_image, plain_mask  # type: ignore[assignment]
    try:
        yield
    finally:
        data._read_image, masks.decode_resized = ours


def train(cfg: CfgNode, folder: Path, photos: tuple[Path, Path], iterations: int) -> str:
    """Return the seconds of an iteration, after the first two, and the share spent waiting."""
    trainer = our_trainer(cfg, folder, photos)
    spent, waited = [], []
    trainer.iter = trainer.start_iter = 0
    with EventStorage(0) as trainer.storage:
        trainer.before_train()
        for trainer.iter in range(iterations):
            start = time.perf_counter()
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
            spent.append(time.perf_counter() - start)
            waited.append(trainer.storage.history("data_time").latest())
            trainer.storage.step()
    whole, waiting = (statistics.fmean(one[2:]) for one in (spent, waited))
    return f"{whole:.2f} s, {waiting / whole:.0%} waiting"


def milliseconds(action: Callable[[Any], object], items: list[Any]) -> str:
    """Return the median over the items of the best of two runs."""
    best = []
    for item in items:
        times = []
        for _ in range(2):
            start = time.perf_counter()
            action(item)
            times.append(time.perf_counter() - start)
        best.append(min(times))
    return f"{1000 * statistics.median(best):.0f} ms"


def load(record: Record) -> None:
    """Load a sample at the published test size."""
    shape = data.resized_shape(record["height"], record["width"], _SHORTEST, _LONGEST)
    data.load_sample(record, data.View(*shape))


def open_for_vit(path: str) -> None:
    """Open and prepare an image as the extraction does."""
    image, _ = open_resized(path, lambda _: (_VIT_SIZE, _VIT_SIZE), RESAMPLING)
    prepare_for_vit(image, _VIT_SIZE)


def detections(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return 100 masks of 28 x 28 values and their boxes, of up to half the image's sides."""
    rng = np.random.default_rng(0)
    noise = rng.random((100, 28, 28)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(one, (0, 0), 3) for one in noise])
    sides = rng.uniform(0.05, 0.5, (100, 2))
    corners = rng.uniform(0, 1 - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1) * [width, height, width, height]
    return ((smooth - 0.5) * 8 + 0.5).clip(0, 1), boxes.astype(np.float32)


def encode_plainly(size: tuple[int, int]) -> None:
    """Paste 100 masks as detectron2 does, and encode them; one by one, to save memory."""
    values, boxes = detections(*size)
    for value, box in zip(values, boxes, strict=True):
        one = torch.from_numpy(value)[None], Boxes(torch.from_numpy(box)[None])
        masks.encode(paste_masks_in_image(*one, size)[0].numpy())


def encode(size: tuple[int, int]) -> None:
    """Encode 100 masks as predictions do."""
    for value, box in zip(*detections(*size), strict=True):
        paste(value, box, *size)


def measure(photos: tuple[Path, Path], folder: Path, iterations: int, plain: bool) -> list[str]:
    """Return the cells of one column of the table."""
    cfg = settings("demo", 0, 0, 8, 1)
    records = list(read_annotations(*photos))
    paths = [record["file_name"] for record in records]
    size = records[0]["height"], records[0]["width"]
    sides = (_SHORTEST, _LONGEST)
    opening: dict[bool, list[Callable[[str], object]]] = {
        True: [
            lambda path: prepare_for_vit(open_image(path), _VIT_SIZE),
            lambda path: prepare_image(open_image(path), sides),
        ],
        False: [open_for_vit, lambda path: open_input(path, sides)],
    }
    encode(size)  # compiled before
    return [
        train(cfg, folder, photos, iterations),
        milliseconds(load, records),
        *(milliseconds(one, paths) for one in opening[plain]),
        milliseconds(encode_plainly if plain else encode, [size]),
    ]


ROWS = (
    "training, an iteration of 8 images",
    "loading one sample at 800 pixels",
    "opening one image for a ViT",
    "opening one image for predictions",
    "encoding 100 predicted masks",
)


@click.command()
@click.option("--megapixels", multiple=True, type=float, default=[12.2, 50], show_default=True)
@click.option("--images", default=8, show_default=True, help="Number of photographs.")
@click.option("--iterations", default=10, show_default=True, help="Of training, here.")
@click.option("--plain-iterations", default=4, show_default=True, help="Of the plain way; 0: none.")
def main(
    megapixels: tuple[float, ...], images: int, iterations: int, plain_iterations: int
) -> None:
    """Print one Markdown table: small versions, and each size in the plain way and here."""
    torch.set_num_threads(1)
    columns: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = make_data(folder, images)
        for count in (0.3, *megapixels):
            root = folder / f"{count:g}"
            photos = make_photographs(scenes, root, count), root
            if count > 0.3 and plain_iterations:
                with plain_loading():
                    found = measure(photos, folder / f"{count:g}.plain", plain_iterations, True)
                columns[f"{count:g} megapixels, plain"] = found
            columns[f"{count:g} megapixels"] = measure(
                photos, folder / f"{count:g}.ours", iterations, False
            )
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for row in zip(ROWS, *columns.values(), strict=True):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
