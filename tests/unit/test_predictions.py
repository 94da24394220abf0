import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco_mask

pytest.importorskip("detectron2")

from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from cuvler import masks
from cuvler.commands import predict, predictions
from cuvler.detector import load_detector
from cuvler.detector.checkpoints import save_model
from cuvler.detector.config import load_detector_config
from cuvler.detector.inference import prepare_image
from cuvler.errors import ConfigError, CuvlerError, DataError
from cuvler.listing import list_images, write_listing
from cuvler.predictions import Options, as_coco_annotations, coco_records, predict_dataset

SERIAL = Options(batch_size=2, workers=0)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A detector with random weights that finds something in every image."""
    folder = tmp_path_factory.mktemp("detector")
    overrides = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "TEST.DETECTIONS_PER_IMAGE", "5"]
    cfg = load_detector_config(
        "demo", num_gpus=0, overrides=[*overrides, "INPUT.MIN_SIZE_TEST", "64"]
    )
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.5)
    save_model(model, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.fixture
def dataset(tmp_path):
    """Five images of two sizes and their listing; the third is broken, the fifth missing."""
    generator = np.random.default_rng(0)
    root = tmp_path / "images"
    root.mkdir()
    names = [f"{index}.png" for index in range(5)]
    for index, name in enumerate(names[:4]):
        pixels = generator.integers(0, 255, (40 + 24 * (index % 2), 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / "2.png").write_bytes(b"no image")
    listing = pd.DataFrame({"image_id": [3, 5, 8, 9, 11], "file_name": names, "shard": 0})
    listing.to_parquet(tmp_path / "listing.parquet")
    return tmp_path / "listing.parquet", root


def predict_to(path, detector, dataset, **options):
    summary = predict_dataset(detector, *dataset, path, **{"options": SERIAL, **options})
    return summary, json.loads(path.read_text())


def test_results_are_coco_in_the_order_of_the_listing(detector, dataset, tmp_path):
    summary, results = predict_to(tmp_path / "results.json", detector, dataset)
    ids = [record["image_id"] for record in results]
    assert ids == sorted(ids)
    assert set(ids) == {3, 5, 9}
    assert summary.predictions == len(results)
    heights = {3: 40, 5: 64, 9: 64}
    for record in results:
        assert set(record) == {"image_id", "category_id", "segmentation", "bbox", "score"}
        assert record["category_id"] == 1
        assert record["segmentation"]["size"] == [heights[record["image_id"]], 60]
        assert isinstance(record["score"], float)
        x, y, width, height = record["bbox"]
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert x + width <= 60 + 1e-4
        assert y + height <= heights[record["image_id"]] + 1e-4
    for image in (3, 5, 9):
        scores = [record["score"] for record in results if record["image_id"] == image]
        assert 0 < len(scores) <= 5
        assert scores == sorted(scores, reverse=True)


def test_unreadable_images_are_counted_and_named(detector, dataset, tmp_path, caplog):
    summary, _ = predict_to(tmp_path / "results.json", detector, dataset)
    assert summary.images == 5
    assert [(name, status) for name, status, _ in summary.failed] == [
        ("2.png", "unreadable"),
        ("4.png", "missing"),
    ]
    assert "2.png: left out, unreadable" in caplog.text
    assert "4.png: left out, missing" in caplog.text


def test_too_many_unreadable_images_are_an_error_that_names_them(detector, dataset, tmp_path):
    output = tmp_path / "results.json"
    predict_to(output, detector, dataset, options=replace(SERIAL, max_failed=0.4))
    output.unlink()
    with pytest.raises(DataError, match=r"2 of 5 images .*2\.png \(unreadable\), 4\.png \(miss"):
        predict_to(output, detector, dataset, options=replace(SERIAL, max_failed=0.3))
    assert not output.exists()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 20_000), (20_000, 400)])
def test_images_of_any_shape(detector, tmp_path, size):
    Image.effect_noise(size, 90).convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "images.json").write_text('{"images": [{"id": 1, "file_name": "a.png"}]}')
    dataset = tmp_path / "images.json", tmp_path
    summary, results = predict_to(tmp_path / "results.json", detector, dataset)
    assert summary.failed == []
    assert all(record["segmentation"]["size"] == [size[1], size[0]] for record in results)


def test_no_readable_image_is_an_error(detector, dataset, tmp_path):
    listing, _ = dataset
    output = tmp_path / "results.json"
    with pytest.raises(DataError, match="none of the 5 images"):
        predict_dataset(detector, listing, tmp_path / "elsewhere", output, options=SERIAL)
    assert not output.exists()


@pytest.mark.parametrize("options", [Options(batch_size=1, workers=0), Options(8, workers=2)])
def test_the_file_does_not_depend_on_batches_and_workers(detector, dataset, tmp_path, options):
    predict_to(tmp_path / "one.json", detector, dataset)
    predict_to(tmp_path / "two.json", detector, dataset, options=options)
    one, two = ((tmp_path / name).read_text() for name in ("one.json", "two.json"))
    assert same(json.loads(one), json.loads(two))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("images", "listing.parquet", "one.json", "two.json")
    ]


@pytest.mark.slow
def test_several_processes_write_the_same_file(detector, dataset, tmp_path):
    _, one = predict_to(tmp_path / "one.json", detector, dataset)
    _, two = predict_to(tmp_path / "two.json", detector, dataset, devices=["cpu", "cpu"])
    assert same(one, two)


@pytest.mark.slow
def test_errors_of_several_processes_are_logged(dataset, tmp_path, capfd):
    with pytest.raises(CuvlerError, match=r"exit code 1; its message is above"):
        predict_to(tmp_path / "one.json", tmp_path / "no", dataset, devices=["cpu", "cpu"])
    shown = capfd.readouterr().err
    assert "no: no such file" in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("*.json"))


def same(one, two):
    """Compare up to the rounding errors of another batch size."""
    if [record["image_id"] for record in one] != [record["image_id"] for record in two]:
        return False
    return all(
        abs(first["score"] - second["score"]) < 1e-4
        and np.allclose(first["bbox"], second["bbox"], atol=1e-2)
        and agree(first["segmentation"], second["segmentation"])
        for first, second in zip(one, two, strict=True)
    )


def agree(one, two):
    """Compare masks up to a few pixels; empty ones have no IoU."""
    return one == two or coco_mask.iou([one], [two], [0])[0, 0] > 0.98


def test_score_threshold_and_detections_per_image(detector, dataset, tmp_path):
    _, everything = predict_to(tmp_path / "all.json", detector, dataset)
    middle = sorted(record["score"] for record in everything)[len(everything) // 2]
    _, some = predict_to(
        tmp_path / "some.json", detector, dataset, options=Options(2, middle, workers=0)
    )
    assert some == [record for record in everything if record["score"] >= middle]
    limit = Options(2, detections_per_image=1, workers=0)
    _, first = predict_to(tmp_path / "first.json", detector, dataset, options=limit)
    assert [record["image_id"] for record in first] == [3, 5, 9]


def test_the_best_predictions_equal_those_of_a_limited_detector(detector, dataset, tmp_path):
    """So self-training, which uses fewer, can use the predictions made for evaluation."""
    many, few = (
        predict_to(
            tmp_path / "r.json", detector, dataset, options=replace(SERIAL, detections_per_image=n)
        )[1]
        for n in (40, 12)
    )
    for image in (3, 5, 9):
        best, limited = ([r for r in found if r["image_id"] == image] for found in (many, few))
        assert len(best) > len(limited) == 12
        assert same(best[:12], limited)


def test_no_predictions_are_an_empty_list(detector, dataset, tmp_path):
    summary, results = predict_to(
        tmp_path / "results.json", detector, dataset, options=Options(2, 1.0, workers=0)
    )
    assert results == []
    assert summary.predictions == 0


def test_images_of_a_coco_json(detector, dataset, tmp_path):
    listing, root = dataset
    images = [{"id": 5, "file_name": "1.png"}, {"id": 3, "file_name": "0.png"}]
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({"images": images, "annotations": []}))
    _, expected = predict_to(tmp_path / "one.json", detector, (listing, root))
    _, found = predict_to(tmp_path / "two.json", detector, (coco, root))
    assert same(found, [record for record in expected if record["image_id"] < 9])
    coco.write_text("[]")
    with pytest.raises(DataError, match=r"coco\.json: COCO results"):
        predict_dataset(detector, coco, root, tmp_path / "three.json", options=SERIAL)


def test_predictions_have_the_orientation_of_the_annotations(detector, tmp_path):
    """A rotated photo (EXIF) with annotations for the stored pixels, and one for upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((60, 40), 90).convert("RGB").save(tmp_path / "a.png", exif=exif)
    found = []
    for width, height in [(60, 40), (40, 60), (61, 40)]:
        image = {"id": 1, "file_name": "a.png", "width": width, "height": height}
        (tmp_path / "coco.json").write_text(json.dumps({"images": [image], "annotations": []}))
        listing = list_images(tmp_path, ground_truth=tmp_path / "coco.json", ids="ground_truth")
        write_listing(listing, tmp_path / "listing.parquet")
        for source in ("coco.json", "listing.parquet"):
            images = tmp_path / source, tmp_path
            if width == 61:
                with pytest.raises(DataError, match="none of the 1 images"):
                    predict_dataset(detector, *images, tmp_path / "r.json", options=SERIAL)
            else:
                summary, results = predict_to(tmp_path / "r.json", detector, images)
                assert summary.failed == []
                sizes = [record["segmentation"]["size"] for record in results]
                assert sizes == [[height, width]] * len(sizes) != []
                found.append(results)
    assert found[0] == found[1] != found[2] == found[3]


def test_a_stopped_run_leaves_no_file(detector, dataset, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cuvler.detector.inference.Detector.detect", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_dataset(detector, *dataset, tmp_path / "results.json", options=SERIAL)
    assert not (tmp_path / "results.json").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def two_found():
    """In 20 x 20 pixels: a box that differs from its mask's, and one with an empty mask."""
    found = Instances((20, 20))
    found.pred_boxes = Boxes(torch.tensor([[3.5, 4.25, 13.5, 11.0], [1.0, 1.0, 2.0, 2.0]]))
    found.pred_masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    found.pred_masks[0, 5:10, 5:12] = True
    found.scores = torch.tensor([0.9, 0.123456789])
    found.pred_classes = torch.tensor([1, 0])
    return found


CATEGORIES = ((3, "car"), (90, "toothbrush"))


def test_records_have_the_predicted_boxes_and_scores_and_all_are_kept(two_found):
    records = list(coco_records(7, two_found, CATEGORIES))
    assert [r["bbox"] for r in records] == [[3.5, 4.25, 10, 6.75], [1, 1, 1, 1]]
    assert [r["score"] for r in records] == two_found.scores.tolist()
    assert [r["category_id"] for r in records] == [90, 3]
    found = [masks.decode(r["segmentation"]) for r in records]
    np.testing.assert_array_equal(found, two_found.pred_masks.numpy())
    assert len(list(coco_records(7, two_found, CATEGORIES, 0.3))) == 1


def test_records_of_unpasted_masks_are_those_of_pasted_ones(detector):
    found = load_detector(detector, device="cpu")
    image = Image.effect_noise((700, 500), 90).convert("RGB")
    unpasted = found.detect([prepare_image(image, found.input_sides)])[0]
    whole = found(image)
    assert whole.pred_masks.shape == (len(whole), 500, 700)
    assert whole.pred_masks.any(dim=(1, 2)).sum() > 0
    categories = found.categories
    expected = list(coco_records(3, whole, categories))
    assert list(coco_records(3, unpasted, categories)) == expected
    median = float(whole.scores.median())
    kept = [record for record in expected if record["score"] >= median]
    assert list(coco_records(3, unpasted, categories, median)) == kept


def test_boxes_are_written_with_the_digits_of_float32(two_found):
    corners = torch.tensor([[0.1, 1 / 3, 19.7, 17.123456], [0.0, 0.0, 1e-6, 2e-5]])
    two_found.pred_boxes = Boxes(corners)
    written = json.loads(json.dumps([r["bbox"] for r in coco_records(7, two_found, CATEGORIES)]))
    assert max(len(str(side)) for side in written[0]) <= 10
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    np.testing.assert_array_equal(np.array(written, dtype=np.float32), sides.numpy())


def test_annotations_have_the_masks_areas(two_found):
    pictures = [(name, (20, 20), two_found) for name in ("a.png", "b.png")]
    coco = as_coco_annotations(pictures, CATEGORIES)
    assert coco["categories"] == [{"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}]
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3, 4]
    assert [a["image_id"] for a in coco["annotations"]] == [1, 1, 2, 2]
    assert [a["area"] for a in coco["annotations"]] == [35, 0, 35, 0]
    assert coco["images"][1] == {"id": 2, "file_name": "b.png", "width": 20, "height": 20}


def test_detector_is_a_callable_on_images(detector):
    image = Image.new("RGB", (70, 50), "grey")
    found = load_detector(detector, device="cpu")(image)
    assert found.image_size == (50, 70)
    assert found.pred_masks.shape == (len(found), 50, 70)
    assert len(found) > 0
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    again = load_detector(detector / "model_final.pth", device="cpu", detections_per_image=1)
    assert len(again(image)) == 1


def test_test_time_augmentation_includes_flipping(detector, tmp_path):
    folder = tmp_path / "detector"
    folder.mkdir()
    (folder / "model_final.pth").write_bytes((detector / "model_final.pth").read_bytes())
    config = (detector / "config.yaml").read_text()
    one_size = config.replace("    - 112\n    - 128\n    - 144\n", "    - 64\n")
    assert one_size != config
    (folder / "config.yaml").write_text(one_size)
    augmented = load_detector(folder, device="cpu", tta=True)
    pixels = np.random.default_rng(1).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    found = augmented(Image.fromarray(pixels))
    mirrored = augmented(Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])))
    assert len(found) > 0
    assert found.pred_masks.shape == (len(found), 50, 70)
    # The predictions of the flipped image are the flipped predictions.
    torch.testing.assert_close(found.scores, mirrored.scores, atol=1e-4, rtol=0)
    boxes = mirrored.pred_boxes.tensor[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
    boxes += torch.tensor([70.0, 0, 70, 0])
    torch.testing.assert_close(found.pred_boxes.tensor, boxes, atol=0.05, rtol=0)
    agreement = (found.pred_masks == mirrored.pred_masks.flip(2)).float().mean()
    assert agreement > 0.99
    plain = load_detector(folder, device="cpu")(Image.fromarray(pixels))
    assert not torch.equal(plain.scores, found.scores)


def test_test_time_augmentation_of_a_dataset(detector, dataset, tmp_path):
    options = Options(batch_size=2, workers=0, tta=True)
    summary, results = predict_to(tmp_path / "results.json", detector, dataset, options=options)
    assert summary.images == 5
    assert {record["image_id"]: record["segmentation"]["size"] for record in results} == {
        **{3: [40, 60], 5: [64, 60]},
        9: [64, 60],
    }
    nothing = Options(2, 1.0, workers=0, tta=True)
    _, results = predict_to(tmp_path / "nothing.json", detector, dataset, options=nothing)
    assert results == []


def test_unusable_detectors_are_named(detector, tmp_path):
    with pytest.raises(DataError, match=r"model_final\.pth: no such file"):
        load_detector(tmp_path)
    (tmp_path / "model_final.pth").write_bytes((detector / "model_final.pth").read_bytes())
    # Without a config it is loaded as one of the published detectors.
    with pytest.raises(DataError, match=r"model_final\.pth: .*config\.yaml"):
        load_detector(tmp_path, detector_config="demo", device="cpu")
    (tmp_path / "config.yaml").write_text("MODEL:\n  WIDTH: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: .*WIDTH"):
        load_detector(tmp_path)
    with pytest.raises(ConfigError, match=r"device: 'gpu'"):
        load_detector(detector, device="gpu")


def test_classes_without_a_category_are_refused(detector, tmp_path):
    (tmp_path / "model_final.pth").write_bytes((detector / "model_final.pth").read_bytes())
    config = (detector / "config.yaml").read_text()
    changed = config.replace("CATEGORY_NAMES:\n  - object", "CATEGORY_NAMES:\n  - a\n  - b")
    assert changed != config
    (tmp_path / "config.yaml").write_text(changed)
    with pytest.raises(ConfigError, match="1 and 2 categories for 1 classes"):
        load_detector(tmp_path, device="cpu")


def test_predictions_command(detector, dataset, tmp_path):
    listing, root = dataset
    output = tmp_path / "results.json"
    arguments = [
        "--detector",
        detector,
        "--listing",
        listing,
        "--image-root",
        root,
        "--output",
        output,
    ]
    more = ["--batch-size", "2", "--num-gpus", "0", "--workers", "0"]
    words = [str(word) for word in arguments + more]
    refused = CliRunner().invoke(predictions.command, words)
    assert "more than the share of 0.01" in str(refused.exception)
    result = CliRunner().invoke(predictions.command, [*words, "--max-failed", "0.4"])
    assert result.exit_code == 0, result.output
    _, expected = predict_to(tmp_path / "expected.json", detector, dataset)
    assert json.loads(output.read_text()) == expected


def test_predict_command_draws_and_writes(detector, dataset, tmp_path):
    _, root = dataset
    output = tmp_path / "found"
    arguments = [root / "0.png", root / "1.png", "--detector", detector, "--output", output]
    more = ["--score-threshold", "0", "--device", "cpu"]
    result = CliRunner().invoke(predict.command, [str(word) for word in arguments + more])
    assert result.exit_code == 0, result.output
    content = json.loads((output / "predictions.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["0.png", "1.png"]
    assert {a["image_id"] for a in content["annotations"]} == {1, 2}
    picture = Image.open(output / "0.masks.png")
    assert picture.size == (60, 40)
    assert (np.asarray(picture) != np.asarray(Image.open(root / "0.png"))).any()


def test_predict_command_states_the_highest_score_where_it_finds_nothing(
    detector, dataset, tmp_path, caplog
):
    _, root = dataset
    output = tmp_path / "found"
    caplog.set_level("INFO")
    words = [root / "0.png", "--detector", detector, "--output", output, "--score-threshold"]

    def drawn(threshold):
        caplog.clear()
        result = CliRunner().invoke(predict.command, [str(word) for word in [*words, threshold]])
        assert result.exit_code == 0, result.output
        content = json.loads((output / "predictions.json").read_text())
        return len(content["annotations"]), caplog.messages[-1]

    count, message = drawn(1)
    assert count == 0
    highest = re.search(r"0\.png: .*highest score is (0\.\d+), below --score-threshold 1", message)[
        1
    ]
    count, message = drawn(highest)  # The advice works.
    assert count > 0
    assert message.endswith(f"objects found: {count}")


def test_predict_command_names_images_of_two_folders_apart(detector, dataset, tmp_path):
    _, root = dataset
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.png").write_bytes((root / "0.png").read_bytes())
    output = tmp_path / "found"
    arguments = [root / "0.png", other / "0.png", "--detector", detector, "--output", output]
    result = CliRunner().invoke(predict.command, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    content = json.loads((output / "predictions.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    assert [name.rpartition("/")[2] for name in names] == ["0.png", "0.png"]
    assert len(set(names)) == 2
    assert all((output / name).with_suffix(".masks.png").exists() for name in names)
