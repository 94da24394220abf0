import json
import socket

import numpy as np
import pytest
from PIL import Image

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
