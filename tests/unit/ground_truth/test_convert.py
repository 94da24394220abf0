import json

import pytest
from click.testing import CliRunner

from cuvler.commands.ground_truth import command
from cuvler.errors import ConfigError, DataError
from cuvler.evaluation import evaluate
from cuvler.ground_truth import FORMATS, Counts, make_ground_truth


def image(number, name):
    return {"id": number, "file_name": name, "width": 100, "height": 50}


def thing(number, image_id, box, **more):
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": number % 3,
        "bbox": box,
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [polygon],
    } | more


@pytest.fixture
def instances(tmp_path):
    """Three images of COCO 2014, two of which are in COCO20K's list."""
    content = {
        "images": [image(n, f"COCO_train2014_{n:012d}.jpg") for n in (9, 25, 30)],
        "annotations": [
            thing(100, 9, [0, 0, 10, 10]),
            thing(7, 25, [5, 5, 20, 20], iscrowd=1),
            thing(50, 30, [1, 1, 8, 8]),
            thing(51, 9, [30, 5, 20, 20]),
        ],
    }
    (tmp_path / "images").mkdir()
    (tmp_path / "instances_train2014.json").write_text(json.dumps(content))
    return content


def test_coco20k_is_a_list_of_coco_2014(tmp_path, instances, convert):
    lines = [
        "train2014/COCO_train2014_000000000030.jpg",
        "train2014/COCO_train2014_000000000009.jpg",
    ]
    (tmp_path / "coco_20k_filenames.txt").write_text("\n".join(lines))
    made = convert("instances_train2014.json", image_lists=["coco_20k_filenames.txt"])
    assert [image["id"] for image in made["images"]] == [9, 30]
    assert [annotation["id"] for annotation in made["annotations"]] == [100, 50, 51]


def test_a_listed_image_that_is_not_annotated_is_named(tmp_path, instances, convert):
    (tmp_path / "list.txt").write_text("train2014/COCO_train2014_000000000031.jpg\n")
    with pytest.raises(DataError, match=r"1 images of .*list\.txt are not annotated: COCO_train"):
        convert("instances_train2014.json", image_lists=["list.txt"])


def test_a_list_cannot_distinguish_images_of_one_name(tmp_path, instances, convert):
    images = [image(1, "a/0.png"), image(2, "b/0.png")]
    (tmp_path / "frames.json").write_text(json.dumps({"images": images, "annotations": []}))
    (tmp_path / "list.txt").write_text("a/0.png\n")
    with pytest.raises(DataError, match=r"a/0\.png and b/0\.png"):
        convert("frames.json", image_lists=["list.txt"])


def test_several_files_of_different_images(tmp_path, instances, convert):
    more = {"images": [image(77, "x.jpg")], "annotations": [thing(100, 77, [0, 0, 5, 5])]}
    (tmp_path / "more.json").write_text(json.dumps(more))
    made = convert("instances_train2014.json", "more.json")
    assert [image["id"] for image in made["images"]] == [9, 25, 30, 77]
    assert [annotation["id"] for annotation in made["annotations"]] == [100, 7, 50, 51, 101]


def test_boxes_only(tmp_path, instances, convert):
    made = convert("instances_train2014.json", masks=False)
    assert not any("segmentation" in annotation for annotation in made["annotations"])


def test_counts(tmp_path, instances):
    counts = make_ground_truth(
        tmp_path / "made.json", [tmp_path / "instances_train2014.json"], tmp_path / "images"
    )
    assert counts == Counts(images=3, objects=4, ignored=1)


def test_the_same_files_give_the_same_bytes(tmp_path, instances, convert):
    convert("instances_train2014.json")
    first = (tmp_path / "ground_truth.json").read_bytes()
    convert("instances_train2014.json")
    assert (tmp_path / "ground_truth.json").read_bytes() == first
    assert str(tmp_path).encode() not in first


class TestExtraAnnotations:
    """COCO*: objects that COCO's annotators left out, from a file of their own."""

    @pytest.fixture
    def extra(self, tmp_path, instances):
        def write(annotations, images=None):
            content = {"images": images or instances["images"][:1], "annotations": annotations}
            (tmp_path / "extra.json").write_text(json.dumps(content))

        return write

    def test_new_objects_join_with_ids_of_their_own_and_repeated_ones_do_not(
        self, tmp_path, instances, extra, convert, caplog
    ):
        caplog.set_level("INFO")
        extra([thing(7, 9, [60, 5, 20, 20]), thing(8, 9, [0, 0, 10.001, 10])])
        made = convert("instances_train2014.json", extra_annotations=["extra.json"])
        added = made["annotations"][4:]
        assert [(a["id"], a["image_id"], a["bbox"]) for a in added] == [(101, 9, [60, 5, 20, 20])]
        assert "1 objects added, 1 repeated" in caplog.text
        assert made["info"]["made_from"] == ["instances_train2014.json", "extra.json"]

    def test_detections_of_them_are_right_only_with_them(self, tmp_path, instances, extra, convert):
        extra([thing(7, 9, [60, 5, 20, 20])])
        results = [{"image_id": 9, "bbox": [60, 5, 20, 20], "score": 0.9}]
        assert evaluate(convert("instances_train2014.json"), results)["AR100"] == 0
        made = convert("instances_train2014.json", extra_annotations=["extra.json"])
        assert evaluate(made, results)["AR100"] == pytest.approx(25)

    def test_other_images_are_refused(self, tmp_path, instances, extra, convert):
        extra([], images=[image(77, "x.jpg")])
        with pytest.raises(DataError, match="image 77 is not in the ground truth"):
            convert("instances_train2014.json", extra_annotations=["extra.json"])
        extra([], images=[image(9, "val2017/000000000009.jpg")])
        with pytest.raises(DataError, match=r"image 9 is val2017/000000000009\.jpg, but COCO_"):
            convert("instances_train2014.json", extra_annotations=["extra.json"])


def test_unknown_formats_and_missing_files_are_named(tmp_path, instances):
    folder = tmp_path / "images"
    with pytest.raises(ConfigError, match="'yolo' is not known; known: coco, youtube_vis, voc"):
        make_ground_truth(tmp_path / "made.json", [], folder, format="yolo")
    for format_ in FORMATS:
        with pytest.raises(DataError, match="gone: no such file or folder"):
            make_ground_truth(tmp_path / "made.json", [tmp_path / "gone"], folder, format=format_)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_folder_in_place_of_a_file_and_the_other_way_round_are_named(tmp_path, format_):
    (tmp_path / "images").mkdir()
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    for wrong in ("images", "file"):
        with pytest.raises(DataError, match=rf"{wrong}: "):
            make_ground_truth(
                tmp_path / "made.json", [tmp_path / wrong], tmp_path / "images", format=format_
            )
    (tmp_path / "boxes.csv").write_text("")
    with pytest.raises(DataError, match=r"boxes\.csv: .*format"):
        make_ground_truth(
            tmp_path / "made.json",
            [tmp_path / "boxes.csv"],
            tmp_path / "file",
            format="open_images",
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n", "names no image"), (b"\xff\xfe", "cannot be read as coco")],
)
def test_an_image_list_that_is_none_is_named(convert, tmp_path, instances, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"list\.txt: {message}"):
        convert("instances_train2014.json", image_lists=["list.txt"])


def test_command(tmp_path, instances):
    (tmp_path / "list.txt").write_text("COCO_train2014_000000000030\n")
    options = {
        "--annotations": tmp_path / "instances_train2014.json",
        "--image-root": tmp_path / "images",
        "--image-list": tmp_path / "list.txt",
        "--output": tmp_path / "results/ground_truth/coco20k.json",
    }
    arguments = [str(word) for pair in options.items() for word in pair]
    outcome = CliRunner().invoke(command, [*arguments, "--boxes-only"])
    assert outcome.exit_code == 0, outcome.output
    made = json.loads(options["--output"].read_text())
    assert [annotation["bbox"] for annotation in made["annotations"]] == [[1, 1, 8, 8]]


def test_the_commands_message_names_the_dataset_where_it_is_known(tmp_path):
    arguments = ["--annotations", tmp_path / "gone", "--image-root", tmp_path, "--output", "x"]
    outcome = CliRunner().invoke(command, list(map(str, arguments)))
    assert str(outcome.exception) == f"{tmp_path / 'gone'}: no such file or folder"
    outcome = CliRunner().invoke(command, [*map(str, arguments), "--dataset", "voc07"])
    assert str(outcome.exception).startswith(f"datasets.voc07: there is no {tmp_path / 'gone'}")
