import json
import socket

import numpy as np
import pytest
from PIL import Image

from cuvler import masks

# A minimal version of the demo's detector: an iteration takes a tenth of a second.
TINY = (
    *("SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.CHECKPOINT_PERIOD", "3"),
    *("SOLVER.STEPS", "(4,)"),
    *("SOLVER.WARMUP_ITERS", "2"),
    *("SOLVER.BASE_LR", "0.001"),
    *("INPUT.MIN_SIZE_TRAIN", "(48, 64)"),
    *("INPUT.MIN_SIZE_TEST", "64"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "8"),
    *("MODEL.FPN.OUT_CHANNELS", "8"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
)


@pytest.fixture
def tiny_dataset(tmp_path):
    """Six images of 64 pixels, each with a bright rectangle: (annotations, image root)."""
    root = tmp_path / "images"
    root.mkdir()
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(6):
        pixels = generator.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        top, left = generator.integers(4, 24, 2)
        mask = np.zeros((64, 64), dtype=bool)
        mask[top : top + 28, left : left + 28] = True
        pixels[mask] += 150
        Image.fromarray(pixels).save(root / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": 64, "width": 64})
        rle = masks.encode(mask)
        annotations.append(
            {
                "id": index + 1,
                "image_id": index,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": rle,
                **masks.geometry(rle),
                "score": 0.8,
            }
        )
    path = tmp_path / "annotations.json"
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    path.write_text(json.dumps(content))
    return path, root


@pytest.fixture
def tiny_classes(tiny_dataset):
    """The same images with classes: bright rectangles are 90 (lamp), dark ones 7 (hole)."""
    path, root = tiny_dataset
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 90, "name": "lamp"}, {"id": 7, "name": "hole"}]
    for annotation in content["annotations"]:
        del annotation["score"]
        annotation["category_id"] = 90
        if annotation["image_id"] % 2:
            annotation["category_id"] = 7
            name = root / f"{annotation['image_id']}.png"
            Image.fromarray(255 - np.asarray(Image.open(name))).save(name)
    classes = path.parent / "classes.json"
    classes.write_text(json.dumps(content))
    return classes, root


@pytest.fixture
def tiny_overrides():
    return TINY


@pytest.fixture
def free_port():
    """A free port for the rendezvous of processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
