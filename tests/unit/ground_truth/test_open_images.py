"""Open Images' table of boxes, as its download page describes it."""

import pytest

from cuvler.errors import DataError, ImageError

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)


@pytest.fixture
def table(tmp_path):
    def write(*rows, header=HEADER):
        (tmp_path / "boxes.csv").write_text("".join(f"{row}\n" for row in [header, *rows]))

    return write


def test_shares_become_pixels_and_groups_are_not_counted(table, picture, convert):
    picture("0001eeaf4aed83f9.jpg")
    picture("000595fe6fee6369.jpg", size=(1024, 768))
    picture("zz.jpg")
    table(
        "000595fe6fee6369,xclick,/m/02xwb,1,0.25,0.5,0.5,1,0,0,1,0,0",
        "0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.1,0.9,0.2,0.7,0,0,0,0,0",
        "000595fe6fee6369,activemil,/m/02xwb,1,0,1,0,1,-1,-1,-1,-1,-1",
        "0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.5,1.01,0,0.1,0,0,0,1,1",
    )
    made = convert("boxes.csv", format="open_images")
    assert [(image["id"], image["width"], image["height"]) for image in made["images"]] == [
        (1, 100, 50),
        (2, 1024, 768),
        (3, 100, 50),  # without a box, but there
    ]
    group, share, unknown, drawing = made["annotations"]
    assert (group["image_id"], group["bbox"], group["iscrowd"]) == (2, [256, 384, 256, 384], 1)
    assert share["bbox"] == pytest.approx([10, 10, 80, 25])
    assert (unknown["bbox"], unknown["iscrowd"]) == ([0, 0, 1024, 768], 0)
    assert drawing["bbox"] == [50, 0, 50, 5]
    assert drawing["iscrowd"] == 0


def test_boxes_of_images_that_are_not_there_are_named(table, picture, convert):
    picture("a.jpg")
    row = "xclick,/m/02xwb,1,0.25,0.5,0.5,1,0,0,1,0,0"
    table(f"a,{row}", f"c,{row}", f"b,{row}", f"b,{row}")
    with pytest.raises(DataError, match=r"2 images .*: b, c"):
        convert("boxes.csv", format="open_images")


def test_an_unreadable_image_is_named(table, picture, convert, tmp_path):
    (tmp_path / "images/a.jpg").write_text("not an image")
    table()
    with pytest.raises(ImageError, match=r"a\.jpg"):
        convert("boxes.csv", format="open_images")


def test_another_table_is_refused(table, picture, convert):
    table(header="ImageID,LabelName")
    with pytest.raises(DataError, match="lacks the columns IsGroupOf, XMax, XMin, YMax, YMin"):
        convert("boxes.csv", format="open_images")


def test_a_row_that_is_no_box_is_named(table, picture, convert):
    picture("a.jpg")
    table("a,xclick,/m/02xwb,1,0.25,half,0.5,1,0,0,1,0,0", "a,xclick")
    with pytest.raises(DataError, match=r"boxes\.csv, line 2: not a box"):
        convert("boxes.csv", format="open_images")
