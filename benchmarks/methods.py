"""Scores of every method of making pseudo-masks with hand-made descriptors, on images with masks.

    python benchmarks/methods.py FOLDER

FOLDER has annotations.json (COCO) and images/. Masks are scored class-agnostically. The settings
of agglomerative grouping and its descriptors were chosen on images at even positions in the file;
those at odd positions are scored alone, too.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from cuvler.discovery import discover_with, load_method
from cuvler.evaluation import evaluate
from cuvler.images import open_image
from cuvler.masks import encode, geometry

PIXELS = ("pixels_p16", "pixels_p14", "pixels_p8")
RUNS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("votecut", PIXELS, {}),
    ("maskcut", PIXELS[-1:], {}),
    ("agglomerative", PIXELS[-1:], {}),
    ("agglomerative", ("colours_p8",), {}),
    ("agglomerative", ("pixels_p8", "colours_p8"), {}),
    ("agglomerative", ("pixels_p8", "colours_p8", "colours_p4"), {"max_masks": 100}),
)
HALVES = ("all", "even", "odd")
METRICS = ("AP", "AP50", "AR100")


@dataclass
class Run:
    """A method's results, and the seconds that it took."""

    name: str
    backbones: Sequence[str]
    settings: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0

    def row(self, content: dict[str, Any]) -> str:
        """Return the row of the table."""
        settings = " ".join(f"{key}={value}" for key, value in self.settings.items())
        cells = [f"{self.name} {settings}".strip(), " ".join(self.backbones)]
        for half in HALVES:
            scores = score(content, self.records, half)
            cells.append(" / ".join(f"{scores[metric]:.1f}" for metric in METRICS))
        images = len(content["images"])
        cells += [f"{len(self.records) / images:.1f}", f"{self.seconds / images:.2f}"]
        return f"| {' | '.join(cells)} |"


def discover_all(run: Run, images: list[dict[str, Any]], folder: Path) -> None:
    """Find the masks of all images."""
    method, loaded = load_method(run.name, run.settings, backbones=run.backbones, weights={})
    for number, image in enumerate(images):
        picture = open_image(folder / image["file_name"], (image["width"], image["height"]))
        start = time.process_time()
        found = discover_with(picture, method, loaded).masks
        run.seconds += time.process_time() - start if number else 0  # Compiled in the first one.
        for mask in found:
            rle = encode(mask.mask)
            record = {"image_id": image["id"], "category_id": 1, "score": mask.score}
            run.records.append(record | {"segmentation": rle} | geometry(rle))


def score(content: dict[str, Any], records: list[dict[str, Any]], half: str) -> dict[str, Any]:
    """Score the masks on all images, or on every second one."""
    step = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}[half]
    images = content["images"][step]
    ids = {image["id"] for image in images}
    truth = [record for record in content["annotations"] if record["image_id"] in ids]
    found = [record for record in records if record["image_id"] in ids]
    part = content | {"images": images, "annotations": truth}
    return dict(evaluate(part, found, iou_type="segm"))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--images", default=0, help="Number of images, evenly spread; 0: all.")
@click.option("--method", multiple=True, help="Only these; repeat for several.")
@click.option("--backbones", help="Names to use in place of the table's, with commas.")
@click.option("--settings", default="{}", help="JSON: settings of the method.")
def main(
    folder: Path, images: int, method: tuple[str, ...], backbones: str | None, settings: str
) -> None:
    """Print a Markdown table: mask AP / AP50 / AR100, masks and seconds of an image."""
    torch.set_num_threads(1)
    content = json.loads((folder / "annotations.json").read_text())
    if images:
        # Pairs of neighbours: one of each half.
        step = max(1, len(content["images"]) // images)
        content["images"] = [
            image for index, image in enumerate(content["images"]) if index // 2 % step == 0
        ]
    chosen = [Run(*run) for run in RUNS if not method or run[0] in method]
    if backbones:
        chosen = [Run(name, backbones.split(","), json.loads(settings)) for name in method]
    halves = " | ".join(f"{half}: {' / '.join(METRICS)}" for half in HALVES)
    print(f"| method | backbones | {halves} | masks | seconds |")
    print("|---" * (4 + len(HALVES)) + "|")
    for run in chosen:
        discover_all(run, content["images"], folder / "images")
        print(run.row(content), flush=True)


if __name__ == "__main__":
    main()
