import base64
import dataclasses
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cuvler.coco import Image as CocoImage
from cuvler.coco import reader
from cuvler.coco.stream import stream_file
from cuvler.eigenvectors.store import STATUSES, ShardEigenvectors, write_eigenvectors
from cuvler.errors import DataError
from cuvler.listing import ListedImage, write_listing
from cuvler.report import examples, gallery, make_report
from cuvler.report.cards import Card, make_card, make_panel
from cuvler.report.dataset import read_dataset
from cuvler.report.examples import mean_best_iou
from cuvler.report.records import ImageTable, best_records
from cuvler.report.stored import read_stored


def make_gallery(inputs, dataset):
    files = read_dataset(inputs, dataset)
    vectors = read_stored(inputs, dataset, files.images)
    return gallery.make_gallery(inputs, dataset, files, vectors)


def best_and_worst(inputs, dataset):
    return examples.best_and_worst(inputs, dataset, read_dataset(inputs, dataset))


def picture(panel):
    return Image.open(io.BytesIO(base64.b64decode(panel.source.split(",")[1])))


def test_each_image_is_shown_as_every_stage_sees_it(inputs):
    cards = make_gallery(inputs, "demo_val")
    assert [card.file_name for card in cards] == ["2.png", "5.png", "9.png"]
    assert [panel.title for panel in cards[0].panels] == [
        "image",
        "pixels_p8",
        "proposals",
        "votecut",
        "cuvler_round0",
        "cuvler_round1",
        "ground truth",
    ]
    assert [panel.note for panel in cards[0].panels[2:]] == [
        "1 by 1 voter",
        "1 mask",
        "1 detection",
        "1 detection",
        "1 object",
    ]
    assert cards[1].panels[3].note == "0 masks"
    for card in cards:
        assert card.error is None
        assert {picture(panel).size for panel in card.panels} == {(120, 80)}


def test_the_cuts_of_another_method_get_panels_of_their_own(inputs, trial):
    content = ShardEigenvectors.empty(np.array([2, 5, 9], dtype=np.int64), 2, (6, 8))
    content.eigenvectors[:] = np.arange(96.0).reshape(2, 6, 8)
    content.status[:] = STATUSES.index("ok")
    (trial.folder / "cuts").mkdir()
    write_eigenvectors(trial.folder / "cuts/0.zarr.zip", content, {"problem": "generalized"})
    more = inputs.eigenvectors | {("demo_val", "maskcut", "pixels_p8"): trial.folder / "cuts"}
    card = make_gallery(dataclasses.replace(inputs, eigenvectors=more), "demo_val")[0]
    assert [panel.title for panel in card.panels[:5]] == [
        "image",
        "pixels_p8 for votecut",
        "pixels_p8 for maskcut, cut 1",
        "pixels_p8 for maskcut, cut 2",
        "proposals",
    ]
    assert card.panels[4].note == "1 by 1 voter"
    # A cut that was not made.
    content.eigenvectors[0, 1] = 0
    write_eigenvectors(trial.folder / "cuts/0.zarr.zip", content, {"problem": "generalized"})
    cards = make_gallery(dataclasses.replace(inputs, eigenvectors=more), "demo_val")
    assert ["cut 2" in card.panels[3].title for card in cards[:2]] == [False, True]


def test_the_panels_show_different_things(inputs):
    panels = make_gallery(inputs, "demo_val")[0].panels
    pixels = [np.asarray(picture(panel).convert("RGB")).astype(int) for panel in panels]
    original = Image.open(inputs.image_roots["demo_val"] / "2.png").resize((120, 80))
    original = np.asarray(original).astype(int)
    outside = np.zeros((80, 120), bool)
    outside[64:, 80:] = True
    assert np.abs(pixels[0] - original).mean() < 10  # lossy, but that image
    for overlay in pixels[3:]:
        assert np.abs(overlay - original)[outside].mean() < 10
        assert np.abs(overlay - pixels[0])[24:48, 24:48].mean() > 20


@pytest.mark.parametrize(
    ("count", "ids"), [(1, [5]), (2, [3, 8]), (5, [2, 3, 5, 8, 9]), (99, [2, 3, 5, 8, 9])]
)
def test_images_are_spread_over_the_dataset(inputs, count, ids):
    cards = make_gallery(dataclasses.replace(inputs, images=count), "demo_val")
    assert [card.file_name for card in cards] == [f"{image_id}.png" for image_id in ids]


def test_datasets_without_any_list_of_images_have_no_gallery(inputs):
    bare = dataclasses.replace(inputs, ground_truth={}, annotations={})
    assert make_gallery(bare, "demo_val") == []
    assert best_and_worst(bare, "demo_val") is None


def test_only_the_shards_of_shown_images_are_opened(inputs, trial):
    key = ("demo_val", "votecut", "pixels_p8")
    folder = shutil.copytree(inputs.eigenvectors[key], trial.folder / "shards")
    (folder / "0.zarr.zip").write_text("damaged")
    one = dataclasses.replace(inputs, images=1, eigenvectors={key: folder})
    with pytest.raises(DataError, match=r"0\.zarr\.zip: damaged"):
        make_gallery(one, "demo_val")
    rows = {"image_id": [2, 3, 5, 8, 9], "file_name": list("abcde"), "shard": [0, 0, 1, 1, 1]}
    write_listing(pd.DataFrame(rows), trial.folder / "listing.parquet")
    listed = dataclasses.replace(one, listings={"demo_val": trial.folder / "listing.parquet"})
    (card,) = make_gallery(listed, "demo_val")
    assert make_report(listed)
    assert [panel.title for panel in card.panels[:3]] == ["image", "pixels_p8", "proposals"]


def test_each_file_is_read_once(inputs, monkeypatch):
    opened = []
    monkeypatch.setattr(
        reader, "stream_file", lambda path, **kw: opened.append(path) or stream_file(path, **kw)
    )
    make_report(inputs)
    expected = [inputs.ground_truth, inputs.annotations, inputs.predictions]
    assert sorted(opened) == sorted(path for files in expected for path in files.values())


def test_images_are_kept_compactly_as_they_are():
    table = ImageTable()
    images = [(9, "ä/b.png", (3, 4)), (-2, "c", None), (5, "", (70000, 1))]
    for image_id, name, size in images:
        table.add(CocoImage(image_id, name, size, {}))
    assert table.ids.tolist() == [-2, 5, 9]
    assert [table[image_id] for image_id, *_ in images] == [ListedImage(*one) for one in images]
    assert table.sizes() == {image_id: size for image_id, _, size in images}


def test_an_image_that_is_gone_says_so(inputs, trial):
    shutil.copytree(inputs.image_roots["demo_val"], trial.folder / "images")
    (trial.folder / "images/5.png").unlink()
    image_roots = {"demo_val": trial.folder / "images"}
    cards = make_gallery(dataclasses.replace(inputs, image_roots=image_roots), "demo_val")
    assert "5.png: no such file" in cards[1].error
    assert cards[1].panels == []
    assert cards[2].panels


def test_masks_of_another_dataset_are_refused(inputs, trial):
    wrong = [trial.square(3, 10, 10, 20, score=0.9) | {"image_id": 2}]
    predictions = {("demo_val", "d"): trial.write("wrong.json", wrong)}
    with pytest.raises(DataError, match=r"wrong\.json: .*image 2.*\[60, 40\] .* \[40, 60\]"):
        make_gallery(dataclasses.replace(inputs, predictions=predictions), "demo_val")


def test_ground_truth_of_boxes_is_drawn_as_boxes(inputs, trial):
    truth = {
        "images": [{"id": 2, "file_name": "2.png", "width": 60, "height": 40}],
        "annotations": [{"id": 1, "image_id": 2, "bbox": [5, 5, 20, 20], "area": 400}],
    }
    boxes = dataclasses.replace(inputs, ground_truth={"demo_val": trial.write("boxes.json", truth)})
    panel = make_gallery(boxes, "demo_val")[0].panels[-1]
    assert (panel.title, panel.note) == ("ground truth", "1 object")


def test_the_best_detections_are_drawn_and_crowds_are_not(trial):
    found = [trial.square(2, 1, 1, 9, score=round(0.01 * n, 2)) for n in range(60)]
    found += [trial.square(3, 1, 1, 9, score=0.9), trial.square(2, 1, 1, 9, score=1.0, iscrowd=1)]
    path, sizes = trial.write("p.json", found), {2: (60, 40)}
    records = best_records(path, sizes, score_threshold=0.5)
    assert list(records) == [2]
    assert [record.score for record in records[2]][:3] == [0.59, 0.58, 0.57]
    assert len(records[2]) == 10
    assert len(best_records(path, sizes)[2]) == 12


def test_large_images_are_made_small(trial):
    Image.new("RGB", (2000, 500)).save(trial.folder / "1.png")
    panel = make_card(trial.folder, ListedImage(1, "1.png"), [], {}, side=640).panels[0]
    assert (panel.width, panel.height) == (640, 160) == picture(panel).size


def test_pictures_of_many_datasets_are_smaller(inputs):
    many = {f"d{n}": inputs.image_roots["demo_val"] for n in range(4)}
    assert inputs.side == 640
    assert dataclasses.replace(inputs, image_roots=many).side == 360


@pytest.mark.parametrize(("count", "columns"), [(0, 0), (3, 3), (5, 5), (6, 3), (8, 4), (11, 4)])
def test_rows_of_panels_are_even(count, columns):
    panel = make_panel("a", "", "a", Image.new("RGB", (2, 2)))
    assert Card("a", "", [panel] * count).columns == columns


def test_best_and_worst_of_the_last_detector(inputs):
    detector, best, worst = best_and_worst(inputs, "demo_val")
    assert detector == "cuvler_round1"
    # Round 1's detections are shifted by 0, 1, 2, 3, 4 pixels.
    assert [card.file_name for card in best] == ["2.png"]
    assert best[0].note == "mean IoU 1.00"
    assert [card.file_name for card in worst] == ["9.png"]
    assert worst[0].note == "mean IoU 0.67"
    assert [panel.title for panel in best[0].panels] == ["image", "cuvler_round1", "ground truth"]


def test_detections_of_boxes_alone_are_ranked(inputs, trial):
    """By the box as a mask, where the ground truth has masks."""
    *_, last = inputs.predictions.values()
    found = json.loads(last.read_text())
    boxes = trial.write("boxes.json", [{**one, "segmentation": None} for one in found])
    alone = dataclasses.replace(inputs, predictions={("demo_val", "d"): boxes})
    _, best, worst = best_and_worst(alone, "demo_val")
    assert [best[0].note, worst[0].note] == ["mean IoU 1.00", "mean IoU 0.67"]


def test_mean_iou_counts_objects_that_were_missed(trial):
    def read(*records):
        content = {"images": [], "annotations": list(records)}
        return best_records(trial.write("r.json", content), {2: (60, 40)}).get(2, [])

    first, second = trial.square(2, 0, 0, 10), trial.square(2, 30, 10, 20)
    objects = read(first, second)
    assert mean_best_iou(objects, read(first)) == pytest.approx(0.5)
    assert mean_best_iou(objects, []) == 0
    empty = trial.square(2, 0, 0, 0) | {"bbox": [0, 0, 10, 10]}
    assert mean_best_iou(objects, read(empty)) == 0
    assert mean_best_iou(objects, read(first, empty)) == pytest.approx(0.5)
    boxes = [{"image_id": 2, "bbox": box} for box in ([0, 0, 10, 10], [30, 10, 20, 10])]
    assert mean_best_iou(read(*boxes), objects) == pytest.approx(0.75)
