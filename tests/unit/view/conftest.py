import json

import numpy as np
import pytest
from PIL import Image

from cuvler.masks import encode, geometry

WIDTH, HEIGHT = 60, 40
IDS = (2, 3, 5, 7, 11, 13)


def square(image_id, left, side=12, **more):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10 : 10 + side, left : left + side] = True
    rle = encode(mask)
    return {"image_id": image_id, "category_id": 1, "segmentation": rle, **geometry(rle), **more}


class Photos:
    """Six photographs, the last of which is missing, and files about them."""

    def __init__(self, folder):
        self.folder, self.root = folder, folder / "photos"
        (self.root / "a").mkdir(parents=True)
        self.images = [
            {"id": number, "file_name": f"a/{number}.png", "width": WIDTH, "height": HEIGHT}
            for number in IDS
        ]
        for image in self.images[:-1]:
            Image.new("RGB", (WIDTH, HEIGHT), "olive").save(self.root / image["file_name"])

    def write(self, content, name="masks.json"):
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path

    def annotations(self, **more):
        masks = [square(number, 5, score=1.0) for number in IDS[:3]]
        masks.append(square(3, 30, score=0.2))
        masks = [{"id": n, "iscrowd": 0, **mask} for n, mask in enumerate(masks, start=1)]
        categories = [{"id": 1, "name": "object"}]
        return {"images": self.images, "categories": categories, "annotations": masks} | more


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return Photos(tmp_path_factory.mktemp("photos"))
