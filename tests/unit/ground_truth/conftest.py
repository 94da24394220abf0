import json

import pytest
from PIL import Image

from cuvler.ground_truth import make_ground_truth


@pytest.fixture
def picture(tmp_path):
    """Write an image of a size under images/."""

    def write(name, size=(100, 50), **options):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path, **options)

    (tmp_path / "images").mkdir()
    return write


@pytest.fixture
def convert(tmp_path):
    """Make ground truth from files under tmp_path and read it back."""

    def run(*annotations, **options):
        for key in ("image_lists", "extra_annotations"):
            if key in options:
                options[key] = [tmp_path / name for name in options[key]]
        make_ground_truth(
            tmp_path / "ground_truth.json",
            [tmp_path / name for name in annotations],
            tmp_path / "images",
            **options,
        )
        return json.loads((tmp_path / "ground_truth.json").read_text())

    return run
