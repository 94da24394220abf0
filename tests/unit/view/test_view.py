import re

import pandas as pd
import pytest
from click.testing import CliRunner

from cuvler.commands.view import command
from cuvler.errors import DataError
from cuvler.listing import write_listing
from cuvler.view import choose, make_page, read_content

from .conftest import IDS, square


def page(photos, path, count=6, **more):
    content = read_content(path, **more)
    truth = more.get("ground_truth")
    return make_page(content, choose(content, count), photos.root, ground_truth=truth)


def cards(text):
    """The cards of a page: file name -> (note, panels with their notes)."""
    found = {}
    for name, body in re.findall(
        r'<article class="card strip" data-name="(.*?)">(.*?)</article>', text, re.S
    ):
        (note,) = re.findall(r"<h4>.*?<span>(.*?)</span>", body)
        found[name] = (note, re.findall(r"<b>(.*?)</b>(?: <span>(.*?)</span>)?", body))
    return found


def test_annotations_are_drawn_over_their_images(photos):
    path = photos.write(photos.annotations())
    text = page(photos, path)
    shown = cards(text)
    assert list(shown) == [f"a/{number}.png" for number in IDS]
    assert shown["a/3.png"] == ("2 masks", [("image", ""), ("masks", "2 masks")])
    assert shown["a/7.png"] == ("no masks", [("image", ""), ("masks", "0 masks")])
    assert shown["a/13.png"][1] == []  # the photograph is missing
    assert text.count("This image could not be shown") == 1
    for fact in ("<dt>masks</dt><dd>4<", "<dt>images</dt><dd>6<", "without masks</dt><dd>3<"):
        assert fact in text


def test_another_image_root_is_noticed(photos, caplog):
    content = read_content(photos.write(photos.annotations()))
    chosen = choose(content, 6)
    make_page(content, chosen, photos.root)
    assert "1 of 6 images cannot be opened" in caplog.text
    with pytest.raises(DataError, match=r"none of 6 images.*nowhere/a/2\.png") as error:
        make_page(content, chosen, photos.folder / "nowhere")
    assert error.value.parameter == "image_root"


def test_a_page_needs_no_other_file_and_is_the_same_each_time(photos):
    path = photos.write(photos.annotations())
    text = page(photos, path)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert page(photos, path) == text


def test_polygons_boxes_and_classes_of_official_annotations(photos):
    drawn = [
        {
            "image_id": 2,
            "category_id": 7,
            "segmentation": [[5, 5, 20, 5, 20, 20, 5, 20]],
            "bbox": [5, 5, 15, 15],
            "area": 225,
        },
        {"image_id": 2, "category_id": 3, "bbox": [30, 5, 15, 15], "area": 225},
        {"image_id": 2, "category_id": 7, "bbox": [30, 5, 15, 15], "area": 225},
        {"image_id": 2, "category_id": 3, "bbox": [0, 0, 60, 40], "area": 2400, "iscrowd": 1},
    ]
    drawn = [{"id": n, "iscrowd": 0, **one} for n, one in enumerate(drawn, start=1)]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "<dog>"}]
    path = photos.write(photos.annotations(annotations=drawn, categories=categories))
    assert cards(page(photos, path))["a/2.png"][0] == "3 masks: 2 &lt;dog&gt;, 1 cat"


@pytest.mark.parametrize("names", ["ground_truth", "listing"])
def test_the_images_of_results_are_named_by_another_file(photos, names):
    results = [square(number, 5, score=0.9) for number in IDS[:2]] + [square(2, 30, score=0.2)]
    path = photos.write(results, "results.json")
    with pytest.raises(DataError, match=r"results\.json") as error:
        read_content(path)
    assert error.value.parameter == "listing"
    if names == "listing":
        named = photos.folder / "listing.parquet"
        rows = {"image_id": IDS, "file_name": [f"a/{number}.png" for number in IDS], "shard": 0}
        write_listing(pd.DataFrame(rows), named)
    else:
        named = photos.write(photos.annotations(), "truth.json")
    shown = cards(page(photos, path, **{names: named}))
    note, panels = shown["a/2.png"]
    assert note == "1 detection"  # the other's score is below the threshold of 0.3
    truth = [("ground truth", "1 object")] if names == "ground_truth" else []
    assert panels == [("image", ""), ("results", "1 detection"), *truth]
    every = read_content(path, score_threshold=0, **{names: named})
    assert every.counts.total() == 3


def test_results_of_other_images_are_refused(photos):
    path = photos.write([{**square(2, 5, score=0.9), "image_id": 99}], "results.json")
    truth = photos.write(photos.annotations(), "truth.json")
    with pytest.raises(DataError, match=r"results\.json.*truth\.json.*99"):
        read_content(path, ground_truth=truth)


def test_many_detections_are_counted_and_the_best_are_drawn(photos):
    results = [square(2, 5, score=0.5 + n / 100) for n in range(20)]
    path = photos.write(results, "results.json")
    shown = cards(page(photos, path, ground_truth=photos.write(photos.annotations(), "truth.json")))
    assert shown["a/2.png"][0] == "20 detections, of which the best 12 are drawn"
    assert shown["a/2.png"][1][1] == ("results", "12 detections")


def test_images_that_a_shard_or_a_merged_file_leaves_out_are_named(photos):
    shard = photos.annotations(info={"method": "votecut"})
    statuses = ["ok", "ok", "ok", "no_mask", "no_mask", "unreadable"]
    images = [
        image | {"status": status} for image, status in zip(photos.images, statuses, strict=True)
    ]
    merged = photos.annotations(images=images[:5], excluded=images[5:])
    for content in (shard | {"images": images}, merged):
        path = photos.write(content, "0.json")
        found = read_content(path)
        assert found.left_out == [("a/13.png", "unreadable")]
        text = page(photos, path)
        assert "<b>a/13.png</b> unreadable" in text
        assert list(cards(text)) == [f"a/{number}.png" for number in IDS[:5]]


class TestChoice:
    @pytest.fixture
    def content(self, photos):
        return read_content(photos.write(photos.annotations()))

    @pytest.mark.parametrize(("count", "ids"), [(1, [7]), (3, [3, 7, 13]), (99, [*IDS])])
    def test_evenly(self, content, count, ids):
        assert list(choose(content, count)) == ids

    def test_at_random(self, content):
        draws = [list(choose(content, 3, seed=seed)) for seed in range(9)]
        assert draws == [list(choose(content, 3, seed=seed)) for seed in range(9)]
        assert len({tuple(draw) for draw in draws}) > 3
        assert all(draw == sorted(draw) for draw in draws)
        assert list(choose(content, 99, seed=1)) == [*IDS]

    @pytest.mark.parametrize(
        ("names", "ids"),
        [(["2.png"], [2]), (["a/2.png", "7.*"], [2, 7]), (["a/*"], [*IDS]), (["1?.png"], [11, 13])],
    )
    def test_by_name(self, content, names, ids):
        assert list(choose(content, 6, names=names)) == ids

    def test_the_number_holds_for_names_too(self, content):
        assert list(choose(content, 1, names=["a/*"])) == [7]

    def test_a_name_that_no_image_has(self, content):
        with pytest.raises(DataError, match=r"masks\.json.*'4\.png'.*a/2\.png"):
            choose(content, 1, names=["2.png", "4.png"])


def test_the_command_writes_a_page(photos, tmp_path):
    path = photos.write(photos.annotations())
    output = tmp_path / "page.html"
    words = [path, "--image-root", photos.root, "--output", output, "--num-images", 2]
    words += ["--seed", 1, "--score-threshold", 0.5]
    result = CliRunner().invoke(command, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert f"{output}: 2 of 6 images" in result.output
    text = output.read_text()
    assert len(cards(text)) == 2
    assert "<dt>smallest score</dt><dd>0.5<" in text


def test_an_empty_file_gives_a_page(photos):
    assert "no images" in page(photos, photos.write({"images": [], "annotations": []}, "none.json"))


def test_names_are_text_and_never_markup(photos):
    evil = "<script>alert(1)</script>.png"
    images = [{**photos.images[0], "file_name": evil}, photos.images[1]]
    text = page(photos, photos.write(photos.annotations(images=images, annotations=[]), "x&y.json"))
    assert text.count("<script") == 1  # the page's own
    assert "<h1>" + photos.folder.name + "/x&amp;y.json</h1>" in text


@pytest.fixture(scope="session")
def uri(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "view.html"
    path.write_text(page(photos, photos.write(photos.annotations(), "view.json")), encoding="utf-8")
    return path.as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_screen_and_needs_no_network(browser, uri, width):
    browser.open(uri, width)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert [url for url in browser.requests if not url.startswith("data:")] == [uri]
    assert browser.complaints == []


@pytest.mark.slow
def test_pictures_are_enlarged(browser, uri):
    browser.open(uri, 360)
    browser.click(".panel", 1)
    assert browser.run("document.getElementById('viewer').open")
    caption = "document.querySelector('#viewer figcaption').textContent"
    assert browser.run(caption) == "a/2.png · view · 1 mask"
    browser.press("ArrowDown")
    assert browser.run(caption) == "a/3.png · view · 2 masks"
    browser.press("Escape")
    assert not browser.run("document.getElementById('viewer').open")
    assert browser.complaints == []
