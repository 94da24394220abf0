import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cuvler.commands.compare import command
from cuvler.compare import compare
from cuvler.compare.page import counts
from cuvler.errors import DataError
from cuvler.evaluation import evaluate
from cuvler.masks import encode, geometry

HEIGHT, WIDTH = 120, 160


def record(box, **more):
    x, y, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + height, x : x + width] = True
    rle = encode(mask)
    return {"segmentation": rle, "category_id": 1, **geometry(rle), **more}


@pytest.fixture
def truth():
    """Image 1: small and large; 2: medium; 3: nothing; 4: a crowd alone; 5: medium."""
    objects = [
        record([5, 5, 10, 10], image_id=1),
        record([40, 10, 110, 100], image_id=1),
        record([20, 20, 50, 50], image_id=2),
        record([20, 20, 50, 50], image_id=4, iscrowd=1),
        record([60, 40, 50, 50], image_id=5),
    ]
    return {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH}
            for n in range(1, 6)
        ],
        "annotations": [{"iscrowd": 0, "id": n, **o} for n, o in enumerate(objects, start=1)],
    }


@pytest.fixture
def results():
    """A finds the large object and a little of image 5; B the small one and image 2."""
    first = [
        record([40, 10, 110, 100], image_id=1, score=0.9),
        record([66, 46, 50, 50], image_id=5, score=0.8),
        record([0, 0, 9, 9], image_id=3, score=0.9),
    ]
    second = [
        record([5, 5, 10, 10], image_id=1, score=0.9),
        record([20, 20, 50, 50], image_id=2, score=0.7),
    ]
    return first, second


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_sizes_are_those_of_the_evaluation(truth, results, iou_type):
    found = compare(truth, *results, iou_type=iou_type)
    both = [evaluate(truth, file, iou_type=iou_type) for file in results]
    for score, metric in zip(found.sizes, ("AP", "APs", "APm", "APl"), strict=True):
        assert score.ap == tuple(scores[metric] for scores in both)
    assert found.sizes[0].ap50 == tuple(scores["AP50"] for scores in both)
    assert found.sizes[0].ar == tuple(scores["AR100"] for scores in both)
    counted = [(score.name, score.objects) for score in found.sizes]
    assert counted == [("all", 4), ("small", 1), ("medium", 2), ("large", 1)]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_an_images_score_is_that_of_the_image_alone(truth, results, iou_type):
    found = compare(truth, *results, iou_type=iou_type)
    assert found.images.keys() == {1, 2, 5}  # those with objects to be found
    for number, score in found.images.items():
        alone = {
            "images": [image for image in truth["images"] if image["id"] == number],
            "annotations": [a for a in truth["annotations"] if a["image_id"] == number],
        }
        for index, file in enumerate(results):
            of_image = [result for result in file if result["image_id"] == number]
            scores = evaluate(alone, of_image, iou_type=iou_type)
            assert score.ap[index] == pytest.approx(scores["AP"])
            assert score.ap50[index] == pytest.approx(scores["AP50"])
            assert score.ar[index] == pytest.approx(scores["AR100"])


def test_images_that_differ_most_come_first(truth, results):
    found = compare(truth, *results)
    assert next(iter(found.images)) == 2
    changes = [abs(score.change) for score in found.images.values()]
    assert changes == sorted(changes, reverse=True)
    assert found.images[2].change == pytest.approx(100)
    assert counts(found) == (1, 1, 1)  # A on image 5, B on 2; on 1 each finds one of two
    same = compare(truth, results[0], results[0])
    assert counts(same) == (0, 0, 3)


def test_many_images_are_scored_in_turns(truth, results, monkeypatch):
    whole = compare(truth, *results)
    monkeypatch.setattr("cuvler.compare.scores._IMAGES", 2)
    assert compare(truth, *results) == whole


def test_what_does_not_belong_together_is_refused(truth, results):
    results[1][0]["image_id"] = 9
    with pytest.raises(DataError, match="ground truth does not list: 9"):
        compare(truth, *results)


def test_boxes_where_a_file_has_no_masks(truth, results):
    assert compare(truth, *results).iou_type == "segm"
    for result in results[0]:
        del result["segmentation"]
    assert compare(truth, *results).iou_type == "bbox"


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path, truth, results):
        (tmp_path / "images").mkdir()
        for number in range(1, 5):  # not the last
            Image.new("RGB", (WIDTH, HEIGHT), "olive").save(tmp_path / f"images/{number}.jpg")
        paths = [tmp_path / name for name in ("one/val.json", "two/val.json", "truth.json")]
        for path, content in zip(paths, (*results, truth), strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        return [*map(str, paths[:2]), "--ground-truth", str(paths[2])]

    def run(self, *arguments):
        outcome = CliRunner().invoke(command, list(map(str, arguments)))
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    def test_sizes_and_images_are_printed(self, files):
        output = self.run(*files)
        assert output.startswith("A one\nB two\n\nmasks")
        assert re.search(r"^medium +2 +\d+\.\d +\d+\.\d +\+\d+\.\d$", output, re.MULTILINE)
        assert "A is better on 1 images, B on 1, neither on 1" in output
        assert re.search(r"0\.0 +100\.0 +\+100\.0  2\.jpg \(1\)", output)
        assert " 1.jpg" not in output  # no difference

    def test_the_page_needs_no_other_file(self, files, tmp_path):
        page_path = tmp_path / "page.html"
        output = self.run(*files, "--image-root", tmp_path / "images", "--output", page_path)
        assert f"{page_path}: the images that differ most" in output
        page = page_path.read_text()
        assert not re.search(r'(?:src|href)="(?!data:image/webp;base64,)', page)
        assert "Where A, one, is better" in page
        better = page.index("Where B, two, is better")
        assert page.index("5.jpg") < better < page.index("2.jpg")
        assert "This image could not be shown" in page  # image 5 is not there
        assert page.count("data:image/webp") == 4  # image 2: itself, truth, A, B
        assert "AP 0.0 of A, 100.0 of B (+100.0), 1 object<" in page

    def test_names_are_text_and_never_markup(self, files, tmp_path):
        evil = "<script>alert(1)<\\script>"
        truth = json.loads((tmp_path / "truth.json").read_text())
        truth["images"][1]["file_name"] = f"{evil}\x1b[2J.jpg"
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        (tmp_path / "one").rename(tmp_path / evil)
        page = tmp_path / "page.html"
        words = [str(tmp_path / evil / "val.json"), *files[1:]]
        output = self.run(*words, "--image-root", tmp_path / "images", "--output", page)
        assert r"\x1b[2J.jpg" in output
        assert "<script" not in page.read_text()
        assert page.read_text().count("&lt;script&gt;alert(1)") >= 3

    def test_the_page_is_the_same_each_time(self, files, tmp_path):
        pages = []
        for name in ("a.html", "b.html"):
            self.run(*files, "--image-root", tmp_path / "images", "--output", tmp_path / name)
            pages.append((tmp_path / name).read_bytes())
        assert pages[0] == pages[1]

    def test_the_same_file_twice(self, files, tmp_path):
        output = self.run(files[0], files[0], *files[2:])
        assert output.startswith("A A\nB B\n")
        assert "neither on 3" in output
