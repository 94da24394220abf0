"""KITTI's labels, as the readme of its object development kit describes them."""

import pytest

from cuvler.errors import DataError, ImageError

CAR = "Car 0.00 0 -1.58 10.50 20.00 60.25 45.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59"
DONT_CARE = "DontCare -1 -1 -10 70.00 5.00 90.00 15.00 -1 -1 -1 -1000 -1000 -1000 -10"
MISC = "Misc 0.90 3 -1.85 -3.00 30.00 8.00 60.00 1.57 1.50 3.68 -1.17 1.65 7.86 1.90"


@pytest.fixture
def label(tmp_path):
    def write(name, *lines):
        path = tmp_path / "label_2" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))

    return write


def test_every_type_is_an_object_and_dont_care_is_not_counted(label, picture, convert):
    picture("000000.png")
    picture("000012.png", size=(80, 40))
    label("000000", CAR, DONT_CARE, MISC)
    label("000012")
    made = convert("label_2", format="kitti", ids="digits")
    assert made["images"] == [
        {"id": 0, "file_name": "000000.png", "width": 100, "height": 50},
        {"id": 12, "file_name": "000012.png", "width": 80, "height": 40},
    ]
    found = [(a["image_id"], a["bbox"], a["iscrowd"]) for a in made["annotations"]]
    assert found == [
        (0, [10.5, 20, 49.75, 25], 0),
        (0, [70, 5, 20, 10], 1),
        (0, [0, 30, 8, 20], 0),  # clipped to the image
    ]


def test_images_without_labels_are_left_out_and_labels_without_image_named(label, picture, convert):
    picture("000001.png")
    label("000001", CAR)
    picture("000002.png")
    assert len(convert("label_2", format="kitti")["images"]) == 1
    label("000003", CAR)
    with pytest.raises(ImageError, match=r"000003\.png: no such file"):
        convert("label_2", format="kitti")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Car 0.00 0", r"line 2: not a KITTI label \(3 fields"),
        (CAR.replace("60.25", "a"), r"line 2: not a KITTI label \(could not convert"),
    ],
)
def test_a_broken_line_is_named(label, picture, convert, line, message):
    picture("000001.png")
    label("000001", CAR, line)
    with pytest.raises(DataError, match=message):
        convert("label_2", format="kitti")


def test_a_folder_without_labels_is_named(tmp_path, picture, convert):
    (tmp_path / "label_2").mkdir()
    with pytest.raises(DataError, match="no label files"):
        convert("label_2", format="kitti")
