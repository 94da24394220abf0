"""Draw docs/images/results.jpg: the stages of the demo's results for a few images.

The images are not hand-picked: they are at fixed ranks of the detector's accuracy.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from cuvler.coco import Annotation
from cuvler.drawing import draw_heat_map, draw_masks, draw_sheet
from cuvler.eigenvectors.store import open_eigenvectors
from cuvler.images import open_image
from cuvler.masks import decode
from cuvler.report.examples import mean_best_iou
from cuvler.report.records import best_records, coco_images

ROOT = Path(__file__).parents[1]
# One row per rank: the fraction of images with more accurate detections.
RANKS = (0.1, 0.3, 0.5, 0.75)
SCORE_THRESHOLD = 0.3
COLUMNS = ("image", "eigenvector", "VoteCut's masks", "detections")
SIZE = (300, 225)


def results_picture(results: Path, data: Path, backbone: str = "pixels_p8") -> Image.Image:
    """Draw one row per image.

    Args:
        results: folder of the demo's results.
        data: folder of the split, with images/ and annotations.json.
        backbone: the backbone of the eigenvector column.
    """
    truth = data / "annotations.json"
    images = coco_images(truth)
    sizes = {number: image.size for number, image in images.items()}
    objects = best_records(truth, sizes)
    masks = best_records(results / "annotations/demo_val/votecut.json", sizes)
    found = best_records(
        results / "predictions/cuvler_round1/demo_val.json", sizes, score_threshold=SCORE_THRESHOLD
    )
    fits = {i: mean_best_iou(objects[i], found.get(i, [])) for i in objects}
    landscape = [i for i in fits if (size := sizes[i]) and size[0] > size[1]]
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
        image = open_image(data / "images" / images[image_id].file_name)
        image = image.resize(SIZE, Image.Resampling.LANCZOS)
        drawn = (
            image,
            draw_heat_map(vectors[image_id], image.size),
            overlay(image, masks.get(image_id, [])),
            overlay(image, found.get(image_id, [])),
        )
        titles = COLUMNS if not panels else [""] * len(COLUMNS)
        panels += zip(titles, drawn, strict=True)
    return draw_sheet(panels, columns=len(COLUMNS))


def overlay(picture: Image.Image, records: list[Annotation]) -> Image.Image:
    """Draw an image's records over it."""
    rles = [record.rle() for record in records]
    masks = [np.asarray(Image.fromarray(decode(rle)).resize(picture.size)) for rle in rles]
    return draw_masks(picture, masks, [record.score or 0.0 for record in records])


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results/demo"
    picture = results_picture(source, ROOT / "demo/val")
    picture.save(ROOT / "docs/images/results.jpg", quality=85, optimize=True)
