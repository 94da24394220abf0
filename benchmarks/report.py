"""Time the report and measure its memory, on synthetic results of ImageNet's size.

    python benchmarks/report.py
    python benchmarks/report.py --images 12800 --masks 60000 --shards 20

There are the listing, eigenvectors of six backbones (small ones: a zip per backbone and shard),
pseudo-masks, and a second dataset with ground truth and predictions of a detector, as large as COCO
val2017. Masks have as many runs as real ones. Only the images that the report shows exist. The
command runs in a separate process; the zips that it opens are counted. It needs about 0.7 kB of
disk per mask.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image

from cuvler import masks
from cuvler.eigenvectors.store import STATUSES, ShardEigenvectors, write_eigenvectors
from cuvler.listing import write_listing

HEIGHT, WIDTH = 375, 500  # ImageNet's most common size
TRAIN, VAL = "imagenet_train", "coco_val"
BACKBONES = ("dino_s16", "dino_s8", "dino_b16", "dino_b8", "dinov2_s14", "dinov2_b14")
_SHAPES = 300
_VAL_OBJECTS, _VAL_DETECTIONS = 7, 100
# Run at startup by Python: it names the zips that are opened.
_HOOK = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".zarr.zip"):
        with open(os.environ["OPENED"], "a") as stream:
            stream.write(str(arguments[0]) + "\\n")
sys.addaudithook(hook)
"""


def shapes() -> list[str]:
    """Return the JSON of ragged ellipses, without braces."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for _ in range(_SHAPES):
        centre, radii = rng.uniform(0.3, 0.7, 2), rng.uniform(0.03, 0.3, 2)
        angle = np.arctan2(y / HEIGHT - centre[0], x / WIDTH - centre[1])
        ragged = 1 + 0.1 * np.sin(7 * angle + rng.uniform(0, 6))
        distance = np.hypot((y / HEIGHT - centre[0]) / radii[0], (x / WIDTH - centre[1]) / radii[1])
        rle = masks.encode(distance < ragged)
        found.append(json.dumps({"segmentation": rle, **masks.geometry(rle)})[1:-1])
    return found


def name_of(image_id: int) -> str:
    """Return a file name like ImageNet's."""
    folder = f"n{10_000_000 + image_id // 1300}"
    return f"{folder}/{folder}_{image_id}.JPEG"


def write_coco(path: Path, opening: str, images: int, annotations: Iterator[str]) -> None:
    """Write a COCO json."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write("{" + opening + '"images": [')
        for number in range(1, images + 1):
            size = f'"width": {WIDTH}, "height": {HEIGHT}'
            text = f'{{"id": {number}, "file_name": "{name_of(number)}", {size}}}'
            stream.write((", " if number > 1 else "") + text)
        stream.write('], "annotations": [')
        for number, text in enumerate(annotations):
            stream.write((", " if number else "") + text)
        stream.write("]}")


def pseudo_masks(images: int, count: int, pool: list[str]) -> Iterator[str]:
    """Yield annotations, evenly distributed over the images."""
    for number in range(count):
        ids = f'"id": {number + 1}, "image_id": {number * images // count + 1}, "category_id": 1'
        votes = 1 + number % 9
        scores = f'"score": {votes / 9}, "cluster_size": {votes}, "crf_success": true'
        yield f"{{{ids}, {pool[number * 7 % _SHAPES]}, {scores}}}"


def objects(images: int, pool: list[str]) -> Iterator[str]:
    """Yield the ground truth of the second dataset."""
    for number in range(images * _VAL_OBJECTS):
        ids = f'"id": {number + 1}, "image_id": {number // _VAL_OBJECTS + 1}, "iscrowd": 0'
        yield f"{{{ids}, {pool[number % _SHAPES]}}}"


def write_detections(path: Path, images: int, pool: list[str]) -> None:
    """Write the predictions of the second dataset; some of them are objects."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(images * _VAL_DETECTIONS):
            image, place = divmod(number, _VAL_DETECTIONS)
            shape = image * _VAL_OBJECTS + place * (1 + image % 3)
            ids = f'"image_id": {image + 1}, "category_id": 1, "score": {1 - place / 100}'
            stream.write((", " if number else "[") + f"{{{ids}, {pool[shape % _SHAPES]}}}")
        stream.write("]")


def write_shards(folder: Path, images: int, shards: int) -> None:
    """Write the listing and the eigenvectors; all backbones have the same."""
    import pandas as pd

    parts = np.array_split(np.arange(1, images + 1), shards)
    shard = np.repeat(np.arange(shards, dtype=np.int32), [len(part) for part in parts])
    names = [name_of(number) for number in range(1, images + 1)]
    rows = {"image_id": np.arange(1, images + 1), "file_name": names, "shard": shard}
    write_listing(pd.DataFrame(rows), folder / "listing.parquet")
    rng = np.random.default_rng(0)
    folders = [folder / "eigenvectors" / name for name in BACKBONES]
    for there in folders:
        there.mkdir(parents=True)
    for number, part in enumerate(parts):
        content = ShardEigenvectors.empty(part, 1, (6, 8))
        content.eigenvectors[:] = rng.normal(size=(1, 6, 8))
        content.status[:] = STATUSES.index("ok")
        path = folders[0] / f"{number}.zarr.zip"
        write_eigenvectors(path, content, {"problem": "standard", "device": "cpu"})
        for there in folders[1:]:
            shutil.copyfile(path, there / path.name)


def write_benchmarks(folder: Path, shards: int) -> None:
    """Write Snakemake's benchmark files of the shards."""
    for rule in ["pseudo_masks", *(f"eigenvectors/{name}" for name in BACKBONES)]:
        there = folder / "benchmarks" / rule
        there.mkdir(parents=True)
        for number in range(shards):
            line = f"{60 + number % 7}.5\t0:01:00\t900.1\t55.2\n"
            (there / f"{number}.tsv").write_text("s\th:m:s\tmax_rss\tcpu_time\n" + line)


def write_images(folder: Path, train: int, val: int, shown: int) -> None:
    """Write the images that are shown, as links to one file, and all of the second dataset."""
    # Imported here: the modules differ in age where two versions are compared.
    from cuvler.report.records import evenly_spread

    picture = folder / "picture.jpg"
    pixels = np.linspace(0, 255, HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3)
    Image.fromarray(pixels.astype(np.uint8)).save(picture)
    chosen = evenly_spread(range(1, train + 1), shown)
    for dataset, numbers in ((TRAIN, chosen), (VAL, range(1, val + 1))):
        for number in numbers:
            path = folder / dataset / name_of(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(picture)


def make(folder: Path, images: int, num_masks: int, shards: int, val: int, shown: int) -> None:
    """Write everything that the report reads."""
    pool = shapes()
    backbones = json.dumps(list(BACKBONES))
    info = f'"method": "votecut", "backbones": {backbones}, "ks": [2, 3], "tau_m": 0.2'
    write_coco(
        folder / "votecut.json",
        f'"info": {{{info}}}, "categories": [{{"id": 1, "name": "object"}}], ',
        images,
        pseudo_masks(images, num_masks, pool),
    )
    write_coco(folder / "truth.json", "", val, objects(val, pool))
    write_detections(folder / "predictions.json", val, pool)
    write_shards(folder, images, shards)
    write_benchmarks(folder, shards)
    write_images(folder, images, val, shown)


def command(folder: Path, *, listing: bool) -> list[str]:
    """Return the words of the command."""
    options = {
        f"image-root={VAL}": folder / VAL,
        f"image-root={TRAIN}": folder / TRAIN,
        f"ground-truth={VAL}": folder / "truth.json",
        f"predictions={VAL}/cuvler_round0": folder / "predictions.json",
        f"annotations={TRAIN}/votecut": folder / "votecut.json",
    }
    for name in BACKBONES:
        options[f"eigenvectors={TRAIN}/votecut/{name}"] = folder / "eigenvectors" / name
    if listing:
        options[f"listing={TRAIN}"] = folder / "listing.parquet"
    words = [sys.executable, "-c", "from cuvler.cli import main; main()", "report"]
    for option, path in options.items():
        name, value = option.split("=", 1)
        words += [f"--{name}", f"{value}={path}"]
    rest = ["--benchmarks", str(folder / "benchmarks"), "--output", str(folder / "report.html")]
    return [*words, *rest]


def measure(folder: Path, words: list[str]) -> tuple[float, float, float, int]:
    """Return wall and processor time in seconds, peak memory in MB and the number of zips."""
    (folder / "hook").mkdir()
    (folder / "hook/sitecustomize.py").write_text(_HOOK, encoding="utf-8")
    opened = folder / "opened.txt"
    opened.touch()
    path = os.pathsep.join([str(folder / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OPENED": str(opened)}
    start = time.perf_counter()
    process = os.posix_spawn(words[0], words, environment)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise click.ClickException("the report failed")
    wall = time.perf_counter() - start
    zips = len(set(opened.read_text(encoding="utf-8").splitlines()))
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, zips


@click.command()
@click.option("--images", default=1_280_000, show_default=True)
@click.option("--masks", "num_masks", default=6_000_000, show_default=True)
@click.option("--shards", default=320, show_default=True)
@click.option("--val-images", default=5000, show_default=True, help="Of the second dataset.")
@click.option("--shown", default=8, show_default=True, help="Images of a gallery.")
@click.option("--listing/--no-listing", default=True, help="Give the report the listing.")
@click.option("--page", type=click.Path(path_type=Path), help="Where to keep the page.")
@click.option("--folder", type=click.Path(exists=True), help="Folder for temporary files.")
def main(
    images: int,
    num_masks: int,
    shards: int,
    val_images: int,
    shown: int,
    listing: bool,
    page: Path | None,
    folder: str | None,
) -> None:
    """Print one line."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        there = Path(temporary)
        make(there, images, num_masks, shards, val_images, shown)
        size = sum(path.stat().st_size for path in there.glob("*.json"))
        wall, processor, peak, zips = measure(there, command(there, listing=listing))
        print(
            f"{images} images, {num_masks} masks, {size / 1e6:.0f} MB of json: {wall:.1f} s "
            f"({processor:.1f} s of processor time), {peak:.0f} MB, {zips} of "
            f"{shards * len(BACKBONES)} zips opened"
        )
        if page:
            text = (there / "report.html").read_text(encoding="utf-8")
            page.write_text(text.replace(temporary, "FOLDER"), encoding="utf-8")


if __name__ == "__main__":
    main()
