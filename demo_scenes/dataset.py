"""Write the demo's datasets: JPEG images and COCO annotations."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cuvler import masks
from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path, write_json
from cuvler.progress import with_progress
from demo_scenes.catalogue import CATEGORIES
from demo_scenes.composition import compose
from demo_scenes.render import render

# An image's entry in the annotations, and the category and mask of each solid in it.
Picture = tuple[dict[str, Any], list[tuple[str, masks.Rle]]]

_QUALITY = 90


def generate(output: StrPath, *, train: int, val: int, seed: int = 0, workers: int = 1) -> None:
    """Render still lifes into ``output/{train,val}/images/*.jpg`` with ``annotations.json``.

    Every image shows one to five shaded solids on a textured ground. The COCO annotations have
    one category per kind of solid and the exact mask of each solid's visible part. An image
    depends only on the seed, the split and its number: on one machine the files are the same,
    byte for byte, for any number of workers. A split's annotations are written last, so that an
    interrupted run leaves none.

    Args:
        output: folder to write to; files of a previous run are replaced.
        train: number of images in the train split, at least 1.
        val: number of images in the val split, at least 1.
        seed: random seed, not negative.
        workers: rendering processes, at least 1.

    Raises:
        DataError: an image folder has files that are not of this dataset.
    """
    counts = {"train": train, "val": val}
    folders = {split: Path(output) / split for split in counts}
    for split, folder in folders.items():
        _check_folder(folder / "images", counts[split])
    for folder in folders.values():
        (folder / "annotations.json").unlink(missing_ok=True)
    with _mapping(workers) as mapping:
        for number, (split, folder) in enumerate(folders.items()):
            task = partial(_write_picture, folder / "images", seed, number)
            pictures = mapping(task, range(1, counts[split] + 1))
            shown = list(with_progress(pictures, counts[split], unit="picture"))
            write_json(folder / "annotations.json", _annotations(shown, split, seed))


def _check_folder(folder: Path, count: int) -> None:
    """Raise an error if a folder has files that would be taken for images of the dataset."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: not a folder; remove it or choose another output folder")
    if not folder.exists():
        return
    ours = {_file_name(number) for number in range(1, count + 1)}
    foreign = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in ours and not entry.name.startswith(".")
    )
    if foreign:
        raise DataError(
            f"{folder}: has {len(foreign)} files that are not of this dataset, such as "
            f"{foreign[0]}; remove them or choose another output folder"
        )


def _file_name(number: int) -> str:
    return f"{number:012d}.jpg"


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator[Picture]]]:
    """Yield a ``map`` function that runs in this process or in several."""
    if workers == 1:
        yield map
        return
    # Forking is unsafe in a process with threads, and the caller may have started some.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=4)


def _write_picture(folder: Path, seed: int, split: int, number: int) -> Picture:
    """Render and write one image, and return its entry and masks."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, number)))
    stage, bodies, hits, visible = compose(rng)
    display = render(stage, bodies, hits, rng)
    image = Image.fromarray(np.moveaxis(np.round(display * 255).astype(np.uint8), 0, 2))
    with atomic_path(folder / _file_name(number)) as temporary:
        image.save(temporary, format="JPEG", quality=_QUALITY)
    entry = {
        "id": number,
        "file_name": _file_name(number),
        "width": image.width,
        "height": image.height,
    }
    rles = [masks.encode(mask) for mask in visible]
    return entry, [(body.category, rle) for body, rle in zip(bodies, rles, strict=True)]


def _annotations(pictures: list[Picture], split: str, seed: int) -> dict[str, Any]:
    category_ids = {name: number for number, name in enumerate(CATEGORIES, start=1)}
    solids = [(entry["id"], *solid) for entry, solids in pictures for solid in solids]
    return {
        "info": {"description": f"Rendered still lifes, {split} split, seed {seed}"},
        "licenses": [],
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
        "images": [entry for entry, _ in pictures],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": category_ids[category],
                "segmentation": rle,
                **masks.geometry(rle),
                "iscrowd": 0,
            }
            for number, (image_id, category, rle) in enumerate(solids, start=1)
        ],
    }
