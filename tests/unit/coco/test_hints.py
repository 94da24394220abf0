"""What is said of files that keep the rules but look like a mistake."""

from cuvler.coco import Annotation, Needs, read_coco

IMAGE = {"id": 1, "width": 100, "height": 80}


def annotation(*box):
    return {"image_id": 1, "bbox": list(box)}


def read(*annotations, images=(IMAGE,), needs=None):
    content = {"images": list(images), "annotations": list(annotations)}
    found = read_coco(content, needs or Needs(), name="mine")
    return [one for one in found if isinstance(one, Annotation)]


def test_boxes_that_look_like_corners_are_said_and_kept(caplog):
    found = read(annotation(50, 30, 90, 70), annotation(60, 20, 99, 79), annotation(1, 1, 9, 9))
    assert found[0].bbox == (50, 30, 90, 70)
    (message,) = caplog.messages
    assert "mine: 2 of 3 boxes" in message
    assert "[x0, y0, x1, y1]" in message


def test_boxes_that_reach_over_an_edge_are_not_taken_for_corners(caplog):
    read(annotation(95, 70, 10, 20), annotation(1, 1, 9, 9), annotation(0, 0, 101, 81))
    assert not caplog.messages


def test_backslashes_in_file_names_are_said_once(caplog):
    images = [{"id": n, "file_name": rf"val\\{n}.jpg"} for n in (1, 2)]
    read(images=images)
    assert len(caplog.messages) == 1
    assert "2 file names have backslashes" in caplog.messages[0]


def test_conversions_are_said_once_a_key_with_a_count(caplog):
    read(*[annotation(1, 1, 9, 9) | {"image_id": "1", "iscrowd": "0"} for _ in range(5)])
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "mine: 'image_id' converted in 5 records",
        "mine: 'iscrowd' converted in 5 records",
    ]


def test_records_without_a_mask_are_counted(caplog):
    caplog.set_level("INFO")
    read(annotation(1, 1, 9, 9), annotation(2, 1, 9, 9))
    assert caplog.messages == ["mine: 2 records without a mask, boxes only"]
