"""COCO's json and its relatives: small files, as each data set documents its own."""

import json

import pytest

from cuvler.errors import DataError
from cuvler.evaluation import evaluate_all

# 4 x 3 pixels; column by column: 2 off, 3 on, 7 off.
UNCOMPRESSED = {"size": [4, 3], "counts": [2, 3, 7]}


def coco(**changes):
    """What cocodataset.org/#format-data describes."""
    return {
        "info": {"year": 2017, "version": "1.0"},
        "licenses": [{"id": 1, "name": "x", "url": "y"}],
        "images": [
            {
                "license": 4,
                "file_name": "000000397133.jpg",
                "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
                "height": 427,
                "width": 640,
                "date_captured": "2013-11-14 17:02:52",
                "flickr_url": "http://farm7.staticflickr.com/x.jpg",
                "id": 397133,
            },
            {"file_name": "000000037777.jpg", "height": 4, "width": 3, "id": 37777},
        ],
        "annotations": [
            {
                "segmentation": [[10.5, 20, 50, 20, 50, 60.25], [1, 1, 5, 1, 5, 5]],
                "area": 700.5,
                "iscrowd": 0,
                "image_id": 397133,
                "bbox": [1, 1, 49, 59.25],
                "category_id": 44,
                "id": 82445,
            },
            {
                "segmentation": UNCOMPRESSED,
                "area": 3,
                "iscrowd": 1,
                "image_id": 37777,
                "bbox": [0, 2, 2, 2],
                "category_id": 1,
                "id": 900100037777,
            },
        ],
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
    } | changes


def write(path, content):
    path.write_text(json.dumps(content))


def test_categories_are_folded_and_ids_boxes_areas_masks_and_crowds_kept(
    tmp_path, picture, convert
):
    write(tmp_path / "instances.json", coco())
    made = convert("instances.json")
    assert [image["id"] for image in made["images"]] == [397133, 37777]
    assert made["images"][0] == {
        "id": 397133,
        "file_name": "000000397133.jpg",
        "width": 640,
        "height": 427,
    }
    assert made["categories"] == [{"id": 1, "name": "object"}]
    first, crowd = made["annotations"]
    assert first == {
        "id": 82445,
        "image_id": 397133,
        "category_id": 1,
        "bbox": [1, 1, 49, 59.25],
        "area": 700.5,
        "iscrowd": 0,
        "segmentation": [[10.5, 20, 50, 20, 50, 60.25], [1, 1, 5, 1, 5, 5]],
    }
    assert (crowd["id"], crowd["iscrowd"]) == (900100037777, 1)
    assert crowd["segmentation"] == UNCOMPRESSED


def test_sections_may_come_in_any_order(tmp_path, picture, convert):
    write(tmp_path / "a.json", coco())
    write(tmp_path / "b.json", dict(reversed(coco().items())))
    assert convert("a.json")["annotations"] == convert("b.json")["annotations"]


def test_what_is_missing_is_worked_out(tmp_path, picture, convert):
    content = coco()
    for annotation in content["annotations"]:
        for key in ("bbox", "area"):
            del annotation[key]
    content["annotations"][0]["segmentation"] = [[10, 20, 50, 20, 50, 60, 10, 60]]
    boxed = {"id": 1, "image_id": 37777, "bbox": [0, 0, 2, 3], "category_id": 1}
    content["annotations"].append(boxed)
    write(tmp_path / "a.json", content)
    square, crowd, box = convert("a.json")["annotations"]
    assert (square["bbox"], square["area"]) == ([10, 20, 40, 40], 1600)
    assert (crowd["bbox"], crowd["area"]) == ([0, 0, 2, 4], 3)
    assert (box["area"], box["iscrowd"], "segmentation" in box) == (6, 0, False)


def test_a_polygon_of_two_points_is_not_taken_for_a_box(tmp_path, picture, convert):
    content = coco()
    content["annotations"][0]["segmentation"] = [[7, 7, 9, 9], [1, 1, 5, 1, 5, 5]]
    write(tmp_path / "a.json", content)
    assert convert("a.json")["annotations"][0]["segmentation"] == [[1, 1, 5, 1, 5, 5]]


def test_ignored_objects_become_crowds(tmp_path, picture, convert):
    content = coco()
    content["annotations"][0]["ignore"] = 1
    write(tmp_path / "a.json", content)
    assert convert("a.json")["annotations"][0]["iscrowd"] == 1


def test_lvis_names_images_by_url_and_has_no_crowds(tmp_path, picture, convert):
    picture("val2017/000000397133.jpg")
    image = {
        "id": 397133,
        "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
        "height": 427,
        "width": 640,
        "neg_category_ids": [3, 9],
        "not_exhaustive_category_ids": [44],
    }
    annotation = {
        "id": 7,
        "image_id": 397133,
        "category_id": 44,
        "segmentation": [[1, 1, 5, 1, 5, 5]],
        "area": 8.0,
        "bbox": [1, 1, 4, 4],
    }
    content = {"images": [image], "annotations": [annotation]}
    write(tmp_path / "lvis_v1_val.json", content | {"categories": [{"id": 44, "frequency": "c"}]})
    made = convert("lvis_v1_val.json")
    assert made["images"] == [
        {"id": 397133, "file_name": "val2017/000000397133.jpg", "width": 640, "height": 427}
    ]
    assert made["annotations"][0]["iscrowd"] == 0
    assert "neg_category_ids" not in json.dumps(made)


def test_objects365_names_more_folders_than_are_kept_and_has_no_masks(tmp_path, picture, convert):
    for name in ("patch8/objects365_v1_00420917.jpg", "patch9/objects365_v2_00420918.jpg"):
        picture(name)
    content = {
        "images": [
            {
                "height": 512,
                "id": 420917,
                "license": 5,
                "width": 769,
                "file_name": "images/v1/patch8/objects365_v1_00420917.jpg",
            },
            {
                "height": 512,
                "id": 420918,
                "width": 769,
                "file_name": "images/v2/patch9/objects365_v2_00420918.jpg",
            },
            {"height": 5, "id": 3, "width": 7, "file_name": "images/v2/patch9/not_there.jpg"},
        ],
        "annotations": [
            {
                "id": 1,
                "iscrowd": 1,
                "isfake": 0,
                "isreflected": 0,
                "bbox": [1.5, 2.5, 10, 20],
                "image_id": 420917,
                "category_id": 7,
                "area": 200.0,
            }
        ],
        "categories": [{"name": "human", "id": 1}],
    }
    write(tmp_path / "zhiyuan_objv2_val.json", content)
    made = convert("zhiyuan_objv2_val.json", masks=False)
    assert [image["file_name"] for image in made["images"]] == [
        "patch8/objects365_v1_00420917.jpg",
        "patch9/objects365_v2_00420918.jpg",
        "images/v2/patch9/not_there.jpg",
    ]
    result = {"image_id": 420917, "bbox": [1, 2, 3, 4], "score": 0.5}
    assert "segm" not in evaluate_all(made, [result])


def test_uvo_frames_lie_in_folders_of_their_videos(tmp_path, picture, convert):
    picture("-0abc_D-efg/12.png")
    image = {"id": 5, "ytid": "-0abc_D-efg", "file_name": "12.png", "height": 4, "width": 3}
    rle = {"size": [4, 3], "counts": "237"}
    annotation = {"id": 1, "image_id": 5, "category_id": 1, "segmentation": rle, "iscrowd": 0}
    write(tmp_path / "UVO_frame_val.json", {"images": [image], "annotations": [annotation]})
    made = convert("UVO_frame_val.json")
    assert made["images"][0]["file_name"] == "-0abc_D-efg/12.png"
    assert made["annotations"][0]["segmentation"] == rle


def videos(**changes):
    """YouTube-VIS's json, as UVO's guide describes its dense set."""
    rle = {"size": [4, 3], "counts": [2, 3, 7]}
    track = {
        "id": 9,
        "video_id": 4,
        "category_id": 1,
        "iscrowd": 0,
        "segmentations": [None, rle, rle],
        "bboxes": [None, [0.0, 0.0, 2.0, 4.0], None],
        "areas": [None, 3, None],
    }
    video = {"width": 3, "height": 4, "length": 3}
    return {
        "videos": [
            video | {"id": 8, "length": 1, "file_names": ["aaa/0.png"]},
            video | {"id": 4, "file_names": ["bbb/0.png", "bbb/1.png", "bbb/2.png"]},
        ],
        "annotations": [track],
        "categories": [{"id": 1, "name": "object"}],
    } | changes


def test_frames_of_videos_become_images_and_absent_objects_nothing(tmp_path, picture, convert):
    write(tmp_path / "UVO_video_val_dense.json", videos())
    made = convert("UVO_video_val_dense.json", format="youtube_vis")
    names = {image["id"]: image["file_name"] for image in made["images"]}
    assert names == {1: "aaa/0.png", 2: "bbb/0.png", 3: "bbb/1.png", 4: "bbb/2.png"}
    assert made["images"][0] | {"width": 3, "height": 4} == made["images"][0]
    seen = [(a["id"], a["image_id"], a["bbox"], a["area"]) for a in made["annotations"]]
    # The last frame's box and area are the mask's own.
    assert seen == [(1, 3, [0, 0, 2, 4], 3), (2, 4, [0, 0, 2, 4], 3)]


def test_videos_of_several_files_are_numbered_on(tmp_path, picture, convert):
    write(tmp_path / "a.json", videos())
    write(tmp_path / "b.json", videos())
    made = convert("a.json", "b.json", format="youtube_vis")
    assert [image["id"] for image in made["images"]] == list(range(1, 9))
    assert [(a["id"], a["image_id"]) for a in made["annotations"]] == [
        (1, 3),
        (2, 4),
        (3, 7),
        (4, 8),
    ]


BROKEN = {
    r"image 0 \(id 1\): 'width' and 'height' are missing": (
        "coco",
        coco(images=[{"id": 1, "file_name": "a"}]),
    ),
    "image 1 has no 'file_name', and no 'coco_url'": (
        "coco",
        coco(images=[{"id": 1, "width": 1, "height": 1}]),
    ),
    r"annotation 0 \(id 82445.*'image_id' is 397133, .* not listed": ("coco", coco(images=[])),
    r"annotation 0 \(id 3.*'bbox' is missing": (
        "coco",
        coco(annotations=[{"id": 3, "image_id": 37777}]),
    ),
    r"'bbox' must be four .* not \[1, 2\]": (
        "coco",
        coco(annotations=[{"id": 3, "image_id": 37777, "area": 1, "bbox": [1, 2]}]),
    ),
    "'segmentation' has no 'size'": (
        "coco",
        coco(annotations=[{"id": 3, "image_id": 37777, "segmentation": {"counts": "2"}}]),
    ),
    "three points or more": (
        "coco",
        coco(annotations=[{"image_id": 37777, "segmentation": [[0, 1, 2, 2]]}]),
    ),
    "image 0: must be an object, not 'a.jpg'": ("coco", coco(images=["a.jpg"])),
    "'height' must be a whole number": (
        "coco",
        coco(images=[{"id": 1, "file_name": "a", "width": 3, "height": None}]),
    ),
    "'id' must be a whole number .*, not 'a'": (
        "coco",
        coco(images=[{"id": "a", "file_name": "a", "width": 3, "height": 4}]),
    ),
    "'id' 397133 is listed twice": ("coco", coco(images=coco()["images"] * 2)),
    "holds no images": ("coco", {"images": [], "annotations": []}),
    "lists no videos": ("youtube_vis", coco()),
    "annotation 0: 'video_id' is 5, .* not listed": (
        "youtube_vis",
        videos(annotations=[{"id": 1, "video_id": 5, "segmentations": []}]),
    ),
    "2 'segmentations' for the 3 frames of video 4": (
        "youtube_vis",
        videos(annotations=[{"id": 1, "video_id": 4, "segmentations": [None, None]}]),
    ),
    "annotation 0: 'bboxes' must be a list, one for each frame, not 5": (
        "youtube_vis",
        videos(annotations=[{"id": 1, "video_id": 4, "segmentations": [None] * 3, "bboxes": 5}]),
    ),
    "annotation 0, frame 1: 'segmentation' .* runs do not fill": (
        "youtube_vis",
        videos(
            annotations=[
                {
                    "video_id": 4,
                    "segmentations": [None, {"size": [4, 3], "counts": [2, 3]}, None],
                }
            ]
        ),
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_broken_is_named(tmp_path, picture, convert, message):
    format_, content = BROKEN[message]
    write(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=message):
        convert("a.json", format=format_)
    assert not (tmp_path / "ground_truth.json").exists()
