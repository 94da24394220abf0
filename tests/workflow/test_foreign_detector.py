"""Rounds of self-training that start from the predictions of a detector trained elsewhere."""

import json
import re

import numpy as np
import pytest

from cuvler.masks import encode

pytestmark = pytest.mark.workflow


@pytest.fixture
def results(scenes, tmp_path):
    """What torchvision's Mask R-CNN finds, before any training, as COCO results."""
    import torch
    from PIL import Image
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    kinds = {"weights": None, "weights_backbone": None, "num_classes": 4}
    limits = {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0, "box_detections_per_img": 5}
    detector = maskrcnn_resnet50_fpn(**kinds, **limits).eval()
    records = []
    for image in json.loads((scenes / "train/annotations.json").read_text())["images"]:
        picture = np.asarray(Image.open(scenes / "train/images" / image["file_name"]))
        with torch.no_grad():
            (found,) = detector([torch.from_numpy(picture / 255).float().permute(2, 0, 1)])
        columns = (found[key].tolist() for key in ("labels", "scores", "boxes"))
        for mask, label, score, (left, top, right, bottom) in zip(
            found["masks"][:, 0].numpy() > 0.5, *columns, strict=True
        ):
            box = [left, top, right - left, bottom - top]
            record = {"image_id": image["id"], "category_id": label, "score": score, "bbox": box}
            records.append(record | {"segmentation": encode(mask)})
    path = tmp_path / "elsewhere.json"
    path.write_text(json.dumps(records))
    return path, records


@pytest.mark.slow
def test_the_first_round_learns_from_its_predictions(workplace, tiny, results):
    path, records = results
    tiny["datasets"]["demo_train"]["predictions"] = str(path)
    settings = workplace.configure(**tiny, recipe="cuvler")
    planned = workplace.snakemake("-n", "-p", "all", *settings)
    assert re.search(r"^detector +1$", planned, re.MULTILINE)
    assert "cuvler_round0" not in planned
    detector = "results/demo/detectors/cuvler_round1/model_final.pth"
    printed = workplace.snakemake(detector, *settings)
    assert not re.search(r"^(pseudo_masks|predictions) +\d+$", printed, re.MULTILINE)
    content = (workplace.folder / "results/demo/self_training/cuvler_round1.json").read_text()
    annotations = json.loads(content)["annotations"]
    assert 0 < len(annotations) <= len(records)
    scores = {record["score"] for record in records}
    assert {record["score"] for record in annotations} <= scores
    assert {record["category_id"] for record in annotations} == {1}
    assert (workplace.folder / detector).exists()
