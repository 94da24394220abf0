"""VOC's and ImageNet's XML, as their development kits describe it."""

import pytest
from PIL import Image

from cuvler.errors import DataError


def xml(objects, *, size="<size><width>100</width><height>50</height><depth>3</depth></size>"):
    return f"""<annotation>
  <folder>VOC2007</folder>
  <filename>%s</filename>
  <source><database>The VOC2007 Database</database></source>
  {size}
  <segmented>0</segmented>
  {objects}
</annotation>"""


def thing(box, *, name="dog", difficult=None, more=""):
    corners = "".join(
        f"<{key}>{value}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    hard = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return (
        f"<object><name>{name}</name><truncated>1</truncated>{hard}"
        f"<bndbox>{corners}</bndbox>{more}</object>"
    )


@pytest.fixture
def annotate(tmp_path):
    def write(name, content):
        path = tmp_path / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return write


def boxes(made):
    return [annotation["bbox"] for annotation in made["annotations"]]


def test_voc_counts_pixels_from_one_and_includes_the_last(annotate, picture, convert):
    picture("000005.jpg")
    annotate("000005", xml(thing([1, 1, 100, 50]) + thing([11, 21, 11, 21])))
    made = convert("Annotations", format="voc", ids="digits")
    assert made["images"] == [{"id": 5, "file_name": "000005.jpg", "width": 100, "height": 50}]
    assert boxes(made) == [[0, 0, 100, 50], [10, 20, 1, 1]]
    assert made["annotations"][0]["area"] == 5000


def test_difficult_objects_are_not_counted(annotate, picture, convert):
    picture("000005.jpg")
    objects = thing([1, 1, 9, 9], difficult=1) + thing([1, 1, 9, 9], difficult=0)
    annotate("000005", xml(objects + thing([2, 2, 9, 9])))
    made = convert("Annotations", format="voc")
    assert [annotation["iscrowd"] for annotation in made["annotations"]] == [1, 0, 0]


def test_parts_of_objects_are_no_objects(annotate, picture, convert):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
    part += "<xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    picture("000005.jpg")
    annotate("000005", xml(thing([11, 11, 20, 20], name="person", more=part)))
    assert boxes(convert("Annotations", format="voc")) == [[10, 10, 10, 10]]


def test_boxes_of_fractions_beyond_the_border_and_without_area(annotate, picture, convert, caplog):
    picture("000005.jpg")
    objects = thing([0, 1, 45.5, 20]) + thing([90, 40, 120, 70]) + thing([30, 30, 20, 40])
    annotate("000005", xml(objects))
    assert boxes(convert("Annotations", format="voc")) == [[0, 0, 45.5, 20], [89, 39, 11, 11]]
    assert "left out 1 boxes" in caplog.text


def test_an_image_without_objects_is_listed(annotate, picture, convert):
    picture("000005.jpg")
    annotate("000005", xml(""))
    made = convert("Annotations", format="voc")
    assert (len(made["images"]), made["annotations"]) == (1, [])


def test_image_lists_of_a_split_and_of_a_class(annotate, picture, convert, tmp_path):
    for name in ("000005", "000007", "000009"):
        picture(f"{name}.jpg")
        annotate(name, xml(thing([1, 1, 9, 9])))
    (tmp_path / "trainval.txt").write_text("000005\n\n")
    (tmp_path / "dog_test.txt").write_text("000009 -1\n000005  1\n")
    lists = ["trainval.txt", "dog_test.txt"]
    made = convert("Annotations", format="voc", image_lists=lists, ids="digits")
    assert [image["id"] for image in made["images"]] == [5, 9]
    assert {annotation["image_id"] for annotation in made["annotations"]} == {5, 9}


def test_a_listed_image_without_annotations_is_named(annotate, picture, convert, tmp_path):
    annotate("000005", xml(""))
    (tmp_path / "test.txt").write_text("000005\n000006\n")
    with pytest.raises(DataError, match=r"1 images of .*test\.txt are not annotated: 000006"):
        convert("Annotations", format="voc", image_lists=["test.txt"])


def test_without_the_image_the_xml_says_its_size_and_kind(annotate, picture, convert):
    annotate("a", xml("").replace("%s", "elsewhere.png"))
    annotate("b", xml(""))
    names = [image["file_name"] for image in convert("Annotations", format="voc")["images"]]
    assert names == ["a.png", "b.jpg"]


def test_without_a_size_the_image_says_it_upright(annotate, picture, convert):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture("a.jpg", size=(40, 20), exif=exif)
    annotate("a", xml("", size=""))
    image = convert("Annotations", format="voc")["images"][0]
    assert (image["width"], image["height"]) == (20, 40)


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_boxes_of_turned_photos_are_in_the_pixels_their_size_means(
    annotate, picture, convert, size
):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("a.jpg", size=(40, 20), exif=exif)
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    annotate("a", xml(thing([3, 5, 18, 15]), size=sides))
    made = convert("Annotations", format="voc")
    assert (made["images"][0]["width"], made["images"][0]["height"]) == size
    assert boxes(made) == [[2, 4, 16, 11]]


def test_neither_size_nor_image_is_named(annotate, picture, convert):
    annotate("a", xml("", size="<size><width>0</width><height>0</height></size>"))
    with pytest.raises(DataError, match=r"a\.xml: has no size"):
        convert("Annotations", format="voc")


class TestImageNet:
    def test_names_digits_and_pixels_from_zero(self, annotate, picture, convert):
        picture("n01440764/n01440764_10026.JPEG")
        annotate("n01440764/n01440764_10026", xml(thing([0, 0, 99, 49], name="n01440764")))
        made = convert("Annotations", format="imagenet", ids="digits")
        assert made["images"][0]["id"] == 144076410026
        assert made["images"][0]["file_name"] == "n01440764/n01440764_10026.JPEG"
        assert boxes(made) == [[0, 0, 99, 49]]

    def test_validation_images_flat_or_in_folders_of_their_class(self, annotate, picture, convert):
        picture("ILSVRC2012_val_00000001.JPEG")
        picture("n02/ILSVRC2012_val_00000002.JPEG")
        for number in (1, 2):
            annotate(f"ILSVRC2012_val_0000000{number}", xml(thing([1, 1, 9, 9], name="n02")))
        made = convert("Annotations", format="imagenet", ids="digits")
        assert {image["id"]: image["file_name"] for image in made["images"]} == {
            201200000001: "ILSVRC2012_val_00000001.JPEG",
            201200000002: "n02/ILSVRC2012_val_00000002.JPEG",
        }

    def test_boxes_drawn_on_another_size_are_scaled(self, annotate, picture, convert):
        picture("n1_1.JPEG", size=(200, 100))
        annotate("n1_1", xml(thing([10, 10, 50, 40])))
        made = convert("Annotations", format="imagenet")
        assert (made["images"][0]["width"], made["images"][0]["height"]) == (200, 100)
        assert boxes(made) == [[20, 20, 80, 60]]

    def test_width_and_height_exchanged_leave_the_boxes(self, annotate, picture, convert):
        picture("n1_1.JPEG", size=(50, 100))
        annotate("n1_1", xml(thing([10, 10, 40, 90])))
        assert boxes(convert("Annotations", format="imagenet")) == [[10, 10, 30, 80]]

    def test_images_without_xml_are_left_out(self, annotate, picture, convert):
        picture("n1_1.JPEG")
        picture("n1_2.JPEG")
        annotate("n1_2", xml(thing([1, 1, 9, 9])))
        made = convert("Annotations", format="imagenet", ids="digits")
        assert [image["id"] for image in made["images"]] == [12]


BROKEN = {
    r"a\.xml: not XML": "<annotation><object>",
    r"a\.xml: object 2 lacks": xml(thing([1, 1, 2, 2]) + "<object></object>"),
    r"a\.xml: object 1 has the box \['1', 'x'": xml(thing([1, "x", 2, 2])),
    r"a\.xml: its size": xml("", size="<size><width>a</width></size>"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_broken_is_named(annotate, picture, convert, message):
    picture("a.jpg")
    annotate("a", BROKEN[message])
    with pytest.raises(DataError, match=message):
        convert("Annotations", format="voc")


def test_digits_that_are_none_or_the_same_are_named(annotate, picture, convert, tmp_path):
    annotate("a", xml(""))
    with pytest.raises(DataError, match=r"a: .*\(none\); set ids: order"):
        convert("Annotations", format="voc", ids="digits")
    annotate("x1", xml(""))
    annotate("y1", xml(""))
    (tmp_path / "Annotations/a.xml").unlink()
    with pytest.raises(DataError, match=r"y1: .*x1"):
        convert("Annotations", format="voc", ids="digits")


def test_a_folder_without_xml_is_named(tmp_path, picture, convert):
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(DataError, match="no XML files"):
        convert("Annotations", format="voc")
