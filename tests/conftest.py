"""Fixtures: the workflow in a temporary folder, and a few of the demo's scenes as data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import yaml

# Deterministic examples without a deadline, because a busy machine is slow.
# `pytest --hypothesis-profile=default` draws new ones.
hypothesis.settings.load_profile("ci")

REPOSITORY = Path(__file__).parents[1]
# The commands of the test environment, whether or not it is activated.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def pytest_collection_modifyitems(items):
    """Run the longest files first: otherwise one process ends with them, and the others wait."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A small demo dataset: train/ and val/, each with images and annotations."""
    folder = tmp_path_factory.mktemp("scenes") / "it's a demo"
    options = ["--output", folder, "--train", "9", "--val", "3"]
    command = [sys.executable, "-m", "demo_scenes", *options]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return folder


class Workplace:
    """A folder to run Snakemake in, as a user would in a clone."""

    def __init__(self, folder):
        self.folder = folder
        for part in ("workflow", "config", "profiles"):
            shutil.copytree(REPOSITORY / part, folder / part)

    def command(self, *arguments):
        return {
            "args": ["snakemake", *map(str, arguments)],
            "cwd": self.folder,
            "env": os.environ | {"PATH": PATH, "OMP_NUM_THREADS": "1"},
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }

    def snakemake(self, *arguments, status=0):
        """Run Snakemake, check its exit status, and return its output."""
        result = subprocess.run(**self.command(*arguments))
        assert result.returncode == status, result.stdout[-5000:]
        return result.stdout

    def start(self, *arguments):
        """Start Snakemake in a new process group."""
        return subprocess.Popen(**self.command(*arguments), start_new_session=True)

    def configure(self, **settings):
        """Write a config file that overrides the demo's; return the flags for it, to put last."""
        (self.folder / "own.yaml").write_text(yaml.safe_dump(settings))
        return "--configfile", "config/laptop.yaml", "config/demo.yaml", "own.yaml"


TOY = """
from typing import Annotated, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.pseudo_masks import PseudoMask
from cuvler.pseudo_masks.methods import Method, Name
from cuvler.pseudo_masks.proposals import resize_nearest


def lucky(level):
    if level == 0.13:
        raise ValueError("brings bad luck")
    return level


def one(mask):
    return [PseudoMask(mask)]


class Split(Method):
    name: ClassVar[str] = "split"
    rate: ClassVar[tuple[float, str]] = (100, "guessed")

    backbone: Name = "pixels_p16"
    level: Annotated[
        float, Field(gt=0, lt=1, description="The share that is left out."), AfterValidator(lucky)
    ] = 0.5
    largest: bool = True

    def needs(self):
        return {self.backbone: Eigenvectors()}

    def masks(self, image, vectors):
        (vector,) = vectors[self.backbone]
        mask = vector > np.quantile(vector, self.level)
        return one(resize_nearest(mask, image.height, image.width))


class Bright(Method):
    name: ClassVar[str] = "bright"

    def masks(self, image, vectors):
        return one(np.asarray(image.convert("L")) > 127)
"""
ENTRIES = "[cuvler.methods]\nsplit = toy:Split\nbright = toy:Bright\n"


@pytest.fixture
def toy_package(tmp_path):
    """A folder to put on the path, with an installed package that has two methods."""
    info = tmp_path / "site/toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "toy.py").write_text(TOY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    return info.parent


@pytest.fixture(scope="session")
def new_workplace():
    """A function: folder -> a workplace there, for tests that need several."""
    return Workplace


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path / "clone")


@pytest.fixture
def tiny(scenes):
    """Settings of a run on the scenes, with a detector trained for two iterations."""
    return {
        "datasets": {
            "demo_train": {
                "images": str(scenes / "train/images"),
                "ground_truth": str(scenes / "train/annotations.json"),
                "shards": 3,
            },
            "demo_val": {
                "images": str(scenes / "val/images"),
                "ground_truth": str(scenes / "val/annotations.json"),
            },
        },
        "pseudo_masks": {"votecut": {"backbones": ["pixels_p16", "pixels_p14"]}},
        "detector": {"opts": ["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2]},
        # Scores are low after two iterations.
        "recipes": {
            recipe: {"self_training": {"score_thresholds": [0.0], "rounds": 1}}
            for recipe in ("cuvler", "cutler")
        },
        "report": {"images": 2},
    }


# Settings with which every image counts alike in each loss and is not augmented: all proposals are
# learned from, as many of each image, one of them foreground. Otherwise the mean of two processes'
# losses is not the loss of their images together.
EVEN = (
    *("INPUT.MIN_SIZE_TRAIN", "(64,)"),
    *("INPUT.RANDOM_FLIP", "none"),
    *("INPUT.COPY_PASTE.ENABLED", "False"),
    *("MODEL.RESNETS.NORM", "naiveSyncBN"),
    *("MODEL.FPN.NORM", "naiveSyncBN"),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "2000"),
    *("MODEL.RPN.NMS_THRESH", "1.0"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "20"),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "2000"),
    *("MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.99]"),
    *("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "(0.99, 0.6, 0.7)"),
)


@pytest.fixture
def even():
    return EVEN


@pytest.fixture
def tiny_dataset(tmp_path):
    """Six images of 64 pixels, each with a bright rectangle: (annotations, image root)."""
    import numpy as np
    from PIL import Image

    from cuvler import masks

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
