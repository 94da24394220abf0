"""CutLER's merge against the published code's results for the same two files.

The goldens' areas are those of the boxes and their heights and widths are swapped; what is
compared is which masks are there, and in which order within an image.
"""

from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from pycocotools import mask as coco_mask

from cuvler.files import read_json
from cuvler.self_training import cutler_annotations

GOLDEN = Path(__file__).parent / "self_training"


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    previous = GOLDEN / "previous_annotations.json"
    images = read_json(previous)["images"]
    rows = sorted((image["id"], image["file_name"]) for image in images)
    listing = pd.DataFrame(rows, columns=["image_id", "file_name"])
    output = tmp_path_factory.mktemp("merged") / "annotations.json"
    cutler_annotations(previous, GOLDEN / "predictions.json", listing, output, score_threshold=0.7)
    return read_json(output)


def masks_by_image(content):
    masks = defaultdict(list)
    for annotation in content["annotations"]:
        masks[annotation["image_id"]].append(annotation["segmentation"]["counts"])
    return masks


def test_the_same_masks_are_kept(ours):
    golden = read_json(GOLDEN / "cutler_merged_threshold_0.7.json")
    assert len(ours["annotations"]) == len(golden["annotations"]) == 92
    ours_by_image, golden_by_image = masks_by_image(ours), masks_by_image(golden)
    assert ours_by_image.keys() == golden_by_image.keys()
    for image_id, masks in golden_by_image.items():
        assert sorted(ours_by_image[image_id]) == sorted(masks)


def test_previous_masks_follow_the_predictions(ours):
    previous = {
        a["segmentation"]["counts"]
        for a in read_json(GOLDEN / "previous_annotations.json")["annotations"]
    }
    predicted = {
        p["segmentation"]["counts"]
        for p in read_json(GOLDEN / "predictions.json")
        if p["score"] >= 0.7
    }
    for masks in masks_by_image(ours).values():
        kinds = [mask in previous - predicted for mask in masks]
        assert kinds == sorted(kinds)
    assert ours["info"]["num_predictions_kept"] == 35
    assert ours["info"]["num_previous_kept"] == 57


def test_areas_are_those_of_the_masks(ours):
    for annotation in ours["annotations"]:
        assert annotation["area"] == coco_mask.area(annotation["segmentation"])
