import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

import detectron2.data.transforms as T
from detectron2.data import DatasetMapper
from detectron2.data.datasets import load_coco_json

from cuvler import masks
from cuvler.detector.config import load_detector_config
from cuvler.detector.copy_paste import bounding_boxes
from cuvler.detector.data import (
    BatchStream,
    View,
    draw_view,
    load_sample,
    resized_shape,
    to_detectron2,
    training_loader,
)
from cuvler.detector.training_annotations import read_annotations
from cuvler.detector.training_file import Instance
from cuvler.errors import DataError

SIDE = 48


@pytest.fixture
def dataset(tmp_path):
    """Six images, alternately wide and high, with one object each except the last."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(6):
        shape = (SIDE, SIDE + 16) if index % 2 else (SIDE + 16, SIDE)
        pixels = generator.integers(0, 255, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        images.append(
            {"id": 10 + index, "file_name": f"{index}.png", "height": shape[0], "width": shape[1]}
        )
        mask = np.zeros(shape, dtype=bool)
        mask[5 : 20 + index, 8:30] = True
        if index < 5:
            annotations.append(
                {
                    "id": index,
                    "image_id": 10 + index,
                    "category_id": 7,
                    "iscrowd": 0,
                    "segmentation": masks.encode(mask),
                    "score": 0.5 + index / 10,
                }
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7}]}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def config(*overrides):
    cfg = load_detector_config(
        "demo",
        num_gpus=0,
        overrides=["SOLVER.IMS_PER_BATCH", "2", "INPUT.MIN_SIZE_TRAIN", "(32, 40)", *overrides],
    )
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def batches(records, cfg, count, **options):
    loader = training_loader(records, cfg, seed=options.pop("seed", 0), **options)
    return list(itertools.islice(loader, count))


def equal(one, two):
    return all(
        torch.equal(a["image"], b["image"])
        and torch.equal(a["instances"].gt_masks.tensor, b["instances"].gt_masks.tensor)
        and a["image_id"] == b["image_id"]
        for first, second in zip(one, two, strict=True)
        for a, b in zip(first, second, strict=True)
    )


def test_scores_are_kept_and_images_without_objects_dropped(dataset):
    data = read_annotations(dataset, dataset.parent)
    assert len(data) == 5
    assert len(read_annotations(dataset, dataset.parent, keep_empty=True)) == 6
    assert data.categories == ((1, "object"),)
    for index, record in enumerate(data):
        sample = load_sample(record)
        assert sample.scores.tolist() == pytest.approx([0.5 + index / 10])
        assert sample.masks.sum() == (15 + index) * 22


def test_official_annotations_without_score_with_polygons_and_crowds(dataset):
    def edit(content):
        del content["annotations"][0]["score"]
        content["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 30, 20, 10, 20]]
        content["annotations"][1]["iscrowd"] = 1
        rle = content["annotations"][2]["segmentation"]
        mask = masks.decode(rle)
        runs = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.T.ravel(), 2])))
        content["annotations"][2]["segmentation"] = {"size": rle["size"], "counts": runs.tolist()}

    full = load_sample(read_annotations(dataset, dataset.parent)[2])
    change(dataset, edit)
    records = read_annotations(dataset, dataset.parent)
    assert [record["image_id"] for record in records] == [10, 12, 13, 14]
    assert load_sample(records[0]).scores.tolist() == [1.0]
    assert load_sample(records[0]).masks.sum() == 20 * 10
    np.testing.assert_array_equal(load_sample(records[1]).masks, full.masks)


def test_sides_may_be_written_as_floats(dataset):
    plain = read_annotations(dataset, dataset.parent)[1]
    change(dataset, lambda content: content["images"][1].update(width=64.0, height=48.0))
    floats = read_annotations(dataset, dataset.parent)[1]
    assert plain == floats
    np.testing.assert_array_equal(load_sample(floats).image, load_sample(plain).image)


@pytest.mark.parametrize("side", [0, -48, None, "48", math.inf])
def test_images_without_valid_sides_are_named(dataset, side):
    change(dataset, lambda content: content["images"][1].update(height=side))
    with pytest.raises(DataError, match=rf"\.json: image 1 \(id 11\): 'height' .* not {side!r}"):
        read_annotations(dataset, dataset.parent)


def test_classes_are_categories_or_one(dataset):
    named = [{"id": 90, "name": "mug"}, {"id": 4, "name": "can"}]
    change(dataset, lambda content: content["categories"].extend(named))
    change(dataset, lambda content: content["annotations"][2].update(category_id=90))
    data = read_annotations(dataset, dataset.parent, class_agnostic=False)
    # Sorted by id, including those without instances; the default name is the id.
    assert data.categories == ((4, "can"), (7, "7"), (90, "mug"))
    classes = [label for record in data for _, label, *_ in record["instances"]]
    assert classes == [1, 1, 2, 1, 1]
    one = read_annotations(dataset, dataset.parent)
    assert one.categories == ((1, "object"),)
    assert [label for record in one for _, label, *_ in record["instances"]] == [0] * 5


def test_unusable_files_are_named(dataset):
    with pytest.raises(DataError, match="no such file"):
        read_annotations(dataset.parent / "none.json", dataset.parent)
    record = read_annotations(dataset, dataset.parent)[0]
    with pytest.raises(DataError, match=r"0\.png: is 48 x 64 pixels, .* 48 x 63"):
        load_sample({**record, "height": SIDE + 15})
    with pytest.raises(DataError, match=r"gone\.png"):
        load_sample({**record, "file_name": str(dataset.parent / "gone.png")})
    change(dataset, lambda content: content.update(annotations=[]))
    with pytest.raises(DataError, match="no annotated image"):
        read_annotations(dataset, dataset.parent)
    dataset.write_text("[]")
    with pytest.raises(DataError, match=r"COCO results .* in place of COCO annotations"):
        read_annotations(dataset, dataset.parent)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (240, 320)),
        ((640, 480), (320, 240)),
        ((100, 1000), (40, 400)),
        ((1, 20_000), (1, 400)),
        ((1, 1), (240, 240)),
    ],
)
def test_resized_shape(size, expected):
    assert resized_shape(*size, 240, 400) == expected


def test_views_keep_masks_and_boxes_on_their_pixels(dataset):
    cfg = config("INPUT.MIN_SIZE_TRAIN", f"({SIDE},)", "INPUT.MAX_SIZE_TRAIN", "1000")
    record = read_annotations(dataset, dataset.parent)[1]
    sample = load_sample(record)
    inside = np.sort(sample.image[sample.masks[0]], axis=0)
    flipped = 0
    for seed in range(40):
        view = draw_view(record, cfg, np.random.default_rng(seed))
        found = load_sample(record, view)
        np.testing.assert_array_equal(np.sort(found.image[found.masks[0]], axis=0), inside)
        np.testing.assert_array_equal(found.boxes, bounding_boxes(found.masks))
        assert np.array_equal(found.image, sample.image) is not view.flipped
        flipped += view.flipped
    assert 10 < flipped < 30


def test_boxes_of_annotations_are_scaled_and_flipped(tmp_path):
    """The annotation's box is used, not the extent of its mask."""
    Image.new("RGB", (400, 300)).save(tmp_path / "image.png")
    mask = np.zeros((300, 400), dtype=bool)
    mask[60:180, 50:200] = True
    instance = Instance(masks.encode(mask), 0, 1.0, (45.5, 58.25, 170.0, 131.75))
    record = {
        "file_name": str(tmp_path / "image.png"),
        "image_id": 1,
        "height": 300,
        "width": 400,
        "instances": [instance, instance._replace(bbox=None)],
    }
    height, width = resized_shape(300, 400, 640, 1333)
    boxes = load_sample(record, View(height, width)).boxes
    assert boxes[0].tolist() == pytest.approx([97.03, 124.27, 459.55, 405.33], abs=0.005)
    # The mask's box if the annotation has none.
    assert boxes[1].tolist() == [107, 128, 426, 384]
    flipped = load_sample(record, View(height, width, flipped=True)).boxes
    np.testing.assert_allclose(flipped[:, [0, 2]], width - boxes[:, [2, 0]], rtol=1e-6)
    np.testing.assert_array_equal(flipped[:, [1, 3]], boxes[:, [1, 3]])


def random_segmentation(generator, height, width):
    """One or two polygons, or a mask in compressed or uncompressed RLE."""
    kind = generator.integers(3)
    if kind == 0:
        corners = [generator.random((generator.integers(3, 9), 2)) for _ in range(2)]
        polygons = [(points * (width, height)).round(2).ravel().tolist() for points in corners]
        return polygons[: generator.integers(1, 3)]
    mask = generator.random((height, width)) < generator.choice([0.0002, 0.5])
    if kind == 1:
        return masks.encode(mask)
    runs = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.T.ravel(), 2]))).tolist()
    return {"size": [height, width], "counts": [0, *runs] if mask[0, 0] else runs}


# detectron2 creates tensors from read-only arrays of Pillow.
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
@pytest.mark.parametrize("seed", range(12))
def test_samples_equal_detectron2s_mapper(tmp_path, seed):
    generator = np.random.default_rng(seed)
    height, width = generator.integers(20, 150, 2).tolist()
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    annotations = []
    for index in range(8):
        # Some reach beyond the image, and some are empty.
        x, y, w, h = (generator.random(4) * 1.2 - 0.2) * [width, height, width, height]
        annotations.append(
            {
                "id": index + 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": int(index == 7),
                "bbox": [x, y, max(w, 0), max(h, 0)],
                "segmentation": random_segmentation(generator, height, width),
            }
        )
    # Two points among polygons are left out. (Floats: detectron2 scales integer polygons
    # with integer arithmetic, with errors of up to a pixel.)
    annotations[0]["segmentation"] = [[1, 1, 9, 9], [2.0, 3, 15, 4, 9, 18]]
    image = {"id": 1, "file_name": "image.png", "height": height, "width": width}
    path = tmp_path / "annotations.json"
    content = {"images": [image], "annotations": annotations, "categories": [{"id": 1}]}
    path.write_text(json.dumps(content))

    view = View(*generator.integers(10, 300, 2).tolist(), flipped=bool(seed % 2))
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[T.Resize((view.height, view.width)), T.RandomFlip(float(view.flipped))],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    theirs = mapper(load_coco_json(str(path), str(tmp_path))[0])
    record = read_annotations(path, tmp_path)[0]
    ours = to_detectron2(load_sample(record, view), record)
    assert torch.equal(ours["image"], theirs["image"])
    one, two = ours["instances"], theirs["instances"]
    assert one.image_size == two.image_size
    assert torch.equal(one.gt_masks.tensor, two.gt_masks.tensor.bool())
    torch.testing.assert_close(one.gt_boxes.tensor, two.gt_boxes.tensor, atol=1e-3, rtol=0)


def test_masks_of_another_size_than_the_image_are_named(dataset):
    record = read_annotations(dataset, dataset.parent)[0]
    mask = masks.encode(np.ones((SIDE, SIDE), dtype=bool))
    instances = [record["instances"][0]._replace(segmentation=mask)]
    with pytest.raises(DataError, match=r"0\.png: .*48 x 48 .* 48 x 64"):
        load_sample({**record, "instances": instances})


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, None], [1, 2, 3, float("nan")], 5])
def test_invalid_boxes_are_named(dataset, box):
    change(dataset, lambda content: content["annotations"][3].update(bbox=box))
    with pytest.raises(DataError, match=r"annotations\.json: annotation 3 .*: 'bbox' .*"):
        read_annotations(dataset, dataset.parent)


def test_batches_share_an_orientation_and_each_epoch_has_every_image():
    wide = np.array([True, False] * 8)
    stream = BatchStream(wide, 4, seed=1)
    found = list(itertools.islice(stream, 12))
    assert [number for number, _ in found] == list(range(12))
    assert all(len({wide[i] for i in indices}) == 1 for _, indices in found)
    for epoch in (found[:4], found[4:8], found[8:]):
        assert sorted(i for _, indices in epoch for i in indices) == list(range(16))
    assert found[:4] != found[4:8]


def test_processes_share_the_stream_and_resuming_continues_it():
    wide = np.array([True] * 10)
    whole = list(itertools.islice(BatchStream(wide, 3, seed=1), 12))
    first = itertools.islice(BatchStream(wide, 3, seed=1, rank=0, world=2), 6)
    second = itertools.islice(BatchStream(wide, 3, seed=1, rank=1, world=2), 6)
    assert [batch for pair in zip(first, second, strict=True) for batch in pair] == whole
    resumed = BatchStream(wide, 3, seed=1, start=4, stop=6, rank=1, world=2)
    assert list(resumed) == whole[9::2]


def test_pasted_samples_have_the_boxes_of_the_masks(dataset):
    def edit(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = [0, 0, 48, 48]

    change(dataset, edit)
    records = read_annotations(dataset, dataset.parent)
    counts = set()
    for batch in batches(records, config(), 10):
        for image in batch:
            instances = image["instances"]
            assert image["image"].shape[1:] == instances.image_size
            assert instances.gt_masks.tensor.shape[1:] == instances.image_size
            counts.add(len(instances))
            tight = bounding_boxes(instances.gt_masks.tensor.numpy())
            boxes = instances.gt_boxes.tensor.numpy()
            assert np.array_equal(boxes, tight) is (len(instances) > 1)
    assert counts == {1, 2}


def test_copy_paste_applies_to_a_share_of_batches(dataset):
    records = read_annotations(dataset, dataset.parent)

    def pasted(*overrides):
        found = batches(records, config("INPUT.COPY_PASTE.SCALE", "(0.3, 0.3)", *overrides), 60)
        return sum(any(len(image["instances"]) > 1 for image in batch) for batch in found)

    assert pasted("INPUT.COPY_PASTE.ENABLED", "False") == 0
    assert pasted("INPUT.COPY_PASTE.RATE", "0.0") == 0
    assert 20 < pasted("INPUT.COPY_PASTE.RATE", "0.5") < 40
    assert pasted() == 60


def test_views_do_not_depend_on_copy_paste(dataset):
    """Batches without copy-paste have the same images in the same views."""
    records = read_annotations(dataset, dataset.parent)
    plain = batches(records, config("INPUT.COPY_PASTE.ENABLED", "False"), 5)
    pasted = batches(records, config(), 5)
    for one, two in zip(*map(itertools.chain.from_iterable, (plain, pasted)), strict=True):
        assert one["image_id"] == two["image_id"]
        kept = ~two["instances"].gt_masks.tensor[1:].any(dim=0)
        assert torch.equal(one["image"][:, kept], two["image"][:, kept])


def test_batches_depend_only_on_seed_and_number(dataset):
    records = read_annotations(dataset, dataset.parent)
    cfg = config()
    whole = batches(records, cfg, 6)
    assert equal(whole[3:], batches(records, cfg, 3, start=3))
    assert not equal(whole, batches(records, cfg, 6, seed=1))
    cfg.DATALOADER.NUM_WORKERS = 2
    assert equal(whole, batches(records, cfg, 6))


def test_an_unreadable_image_stops_training_and_is_named(dataset):
    records = read_annotations(dataset, dataset.parent)
    (dataset.parent / "2.png").write_bytes(b"no image")
    cfg = config()
    cfg.DATALOADER.NUM_WORKERS = 1
    with pytest.raises(DataError, match=r"2\.png"):
        batches(records, cfg, 10)
