"""Draw docs/images/results.jpg from the demo's results: what a few pictures become on their way.

The rows are not chosen by eye: they are the images at fixed ranks of the detector's accuracy.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from cuvler.coco_json import stream_annotations, to_rle
from cuvler.drawing import draw_heat_map, draw_masks, draw_sheet
from cuvler.eigenvectors.store import open_eigenvectors
from cuvler.images import open_image
from cuvler.masks import decode
from cuvler.report.examples import mean_best_iou
from cuvler.report.gallery import best_records

ROOT = Path(__file__).parents[1]
# Shares of the images whose detections fit the objects better than those of the row.
RANKS = (0.1, 0.3, 0.5, 0.75)
SCORE_THRESHOLD = 0.3
COLUMNS = ("image", "eigenvector", "VoteCut's masks", "detections")
SIZE = (300, 225)


def results_picture(results: Path, data: Path, backbone: str = "pixels_p8") -> Image.Image:
    """Draw one row an image.

    Args:
        results: the demo's results.
        data: the split that was predicted on, with images/ and annotations.json.
        backbone: whose eigenvector is shown.
    """
    truth = data / "annotations.json"
    images = {i["id"]: i for section, i in stream_annotations(truth) if section == "images"}
    objects = best_records(truth, images)
    masks = best_records(results / "annotations/demo_val/votecut.json", images)
    found = best_records(
        results / "predictions/cuvler_round1/demo_val.json", images, score_threshold=SCORE_THRESHOLD
    )
    fits = {i: mean_best_iou(objects[i], found.get(i, []), images[i]) for i in objects}
    landscape = [i for i in fits if images[i]["width"] > images[i]["height"]]
    ranking = sorted(landscape, key=lambda image_id: -fits[image_id])
    chosen = [ranking[round(rank * (len(ranking) - 1))] for rank in RANKS]
    vectors = {}
    with open_eigenvectors(
        results / f"eigenvectors/demo_val/votecut/{backbone}/0.zarr.zip"
    ) as store:
        for index, image_id in enumerate(store.image_ids.tolist()):
            vectors[image_id] = store.vector(index)[0]
    panels: list[tuple[str, Image.Image]] = []
    for image_id in chosen:
        image = open_image(data / "images" / images[image_id]["file_name"])
        image = image.resize(SIZE, Image.Resampling.LANCZOS)
        drawn = (
            image,
            draw_heat_map(vectors[image_id], image.size),
            overlay(image, masks.get(image_id, []), images[image_id]),
            overlay(image, found.get(image_id, []), images[image_id]),
        )
        titles = COLUMNS if not panels else [""] * len(COLUMNS)
        panels += zip(titles, drawn, strict=True)
    return draw_sheet(panels, columns=len(COLUMNS))


def overlay(picture: Image.Image, records: list[dict], image: dict) -> Image.Image:
    """Lay an image's records over the picture of it."""
    rles = [to_rle(record, image["height"], image["width"]) for record in records]
    masks = [np.asarray(Image.fromarray(decode(rle)).resize(picture.size)) for rle in rles]
    return draw_masks(picture, masks, [record["score"] for record in records])


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results/demo"
    picture = results_picture(source, ROOT / "demo/val")
    picture.save(ROOT / "docs/images/results.jpg", quality=85, optimize=True)
