import json

import numpy as np
import pytest
from click.testing import CliRunner

from cuvler.commands.export import command
from cuvler.masks import encode, geometry

WIDTH, HEIGHT = 40, 30


def square(top, left, side=10):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + side, left : left + side] = True
    return mask


RING = square(2, 2, 14) & ~square(6, 6, 4)  # with a hole
PIECES = square(3, 20, 5) | square(20, 25, 8) & ~square(22, 27, 3)
POLYGON = [[1.5, 1.25, 12.0, 2.0, 9.0, 17.5]]


def record(number, image_id, mask, **more):
    rle = encode(mask)
    found = {"id": number, "image_id": image_id, "category_id": 3, "iscrowd": 0}
    return found | {"segmentation": rle, **geometry(rle)} | more


class Example:
    """Three images, the last without objects; their annotations are not in the images' order."""

    def __init__(self, folder):
        self.folder = folder
        self.masks = {11: RING, 12: PIECES, 14: square(20, 2)}
        self.content = {
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
            "images": [
                {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
                for number, name in ((5, "a/five.jpg"), (2, "two.png"), (9, "nine.jpg"))
            ],
            "annotations": [
                record(11, 5, RING, score=0.4, note="kept"),
                record(12, 2, PIECES, score=0.7, category_id=7),
                record(13, 5, RING, segmentation=POLYGON, score=0.9, category_id=7),
                record(14, 2, square(20, 2), iscrowd=1),
                record(15, 2, np.zeros_like(RING), score=0.1),
            ],
        }
        self.path = self.write(self.content)

    def write(self, content, name="masks.json"):
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path

    def export(self, name, *options, path=None):
        """Run the command; return the output's path and what was printed."""
        output = self.folder / "out" / f"{name}.exported"
        words = [str(path or self.path), "--format", name, "--output", str(output), *options]
        result = CliRunner().invoke(command, words, catch_exceptions=True)
        if result.exception:
            raise result.exception
        return output, result.output


@pytest.fixture
def example(tmp_path):
    return Example(tmp_path)
