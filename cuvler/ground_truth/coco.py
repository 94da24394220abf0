"""COCO json and its variants: LVIS, Objects365, UVO's frames and videos.

Boxes, masks, areas and the ids of images and annotations are kept, so that published result files
can be evaluated. ``iscrowd`` is kept: COCO's evaluation counts a crowd neither as a miss nor as a
false positive. LVIS has no crowds; its lists of categories that are absent or not exhaustively
annotated (``neg_category_ids``, ``not_exhaustive_category_ids``) have no meaning for a single
category. LVIS is therefore evaluated with COCO's metric: every annotated object counts, and
detections of objects that are not annotated are false positives. Whether CutLER's LVIS file
differs could not be verified.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cuvler.coco_json import is_finite, stream_annotations, to_rle
from cuvler.errors import DataError
from cuvler.ground_truth.source_records import OTHER_FORMAT, Ids, Locator, Record, Records
from cuvler.masks import geometry

_KEPT = ("id", "image_id", "bbox", "area")
_WHOLE_NUMBERS = ("id", "image_id", "video_id", "width", "height")


def coco_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read COCO json; of several files, with different images, only the first keeps its ids.

    Args:
        annotations: the files.
        images: the folder to which file names are relative.
        ids: not used; images have ids.

    Raises:
        DataError: a file is not COCO json, or an annotation's image is not listed.
    """
    locator = Locator(images)
    for number, path in enumerate(annotations):
        sizes: dict[int, tuple[int, int]] = {}
        # Two passes: sections may be in any order, and the file may not fit into memory.
        for section, record in stream_annotations(path):
            if section == "images":
                image = _image(record, locator, path)
                sizes[image["id"]] = (image["height"], image["width"])
                yield "images", image
        for section, record in stream_annotations(path):
            if section == "annotations":
                annotation = _annotation(record, sizes, path)
                if number > 0:  # ids are unique within one file only
                    annotation.pop("id", None)
                yield "annotations", annotation


def _image(record: Record, locator: Locator, path: Path) -> Record:
    _require(record, {"id", "width", "height"}, path, "image")
    name = record.get("file_name")
    if name is None:
        # LVIS v1: http://images.cocodataset.org/val2017/000000397133.jpg is val2017/...
        _require(record, {"coco_url"}, path, "image")
        name = "/".join(str(record["coco_url"]).split("/")[-2:])
    # UVO: frames are in a folder named after their video.
    name = locator.find(str(name), folder=str(record.get("ytid", "")))
    return {
        "id": record["id"],
        "file_name": name,
        "width": record["width"],
        "height": record["height"],
    }


def _annotation(record: Record, sizes: dict[int, tuple[int, int]], path: Path) -> Record:
    _require(record, {"image_id"}, path, "annotation")
    if record["image_id"] not in sizes:
        raise DataError(
            f"{path}: annotation {record.get('id')} is on image {record['image_id']}, "
            "which is not listed"
        )
    height, width = sizes[record["image_id"]]
    kept: Record = {key: record[key] for key in _KEPT if key in record}
    kept["iscrowd"] = int(bool(record.get("iscrowd") or record.get("ignore")))
    if record.get("segmentation"):
        kept["segmentation"] = _segmentation(record, path)
    return _complete(kept, height, width, path)


def _segmentation(record: Record, path: Path) -> Any:
    segmentation = record["segmentation"]
    if not isinstance(segmentation, list):
        return segmentation
    # Fewer than three points have no area, and pycocotools reads two points as a box.
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if polygons:
        return polygons
    x, y, w, h = _box(record, path)
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _complete(record: Record, height: int, width: int, path: Path) -> Record:
    """Compute a missing box from the mask, and a missing area from the mask or the box."""
    if "bbox" in record and record.get("area") is not None:
        _box(record, path)
        return record
    if "segmentation" in record:
        try:
            rle = to_rle(record, height, width)
        except ValueError as error:
            raise DataError(f"{path}: annotation {record.get('id')}: {error}") from error
        of_mask = geometry(rle)
        record.setdefault("bbox", of_mask["bbox"])
        record["area"] = float(of_mask["area"])
    else:
        _, _, w, h = _box(record, path)
        record["area"] = float(w * h)
    return record


def youtube_vis_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read YouTube-VIS json (UVO's dense sets); every frame becomes an image.

    Frames and their objects are numbered from 1, in the file's order. An object's
    ``segmentations``, ``bboxes`` and ``areas`` have one item per frame, null where it is not
    visible.

    Args:
        annotations: the files.
        images: the folder to which the frames' names are relative.
        ids: not used; frames are numbered.

    Raises:
        DataError: a file is not YouTube-VIS json, or an object's video is not listed or has a
            different number of frames.
    """
    locator = Locator(images)
    count = 0
    for path in annotations:
        videos: dict[int, tuple[int, int, int, int]] = {}  # first image id, frames, size
        for section, video in stream_annotations(path):
            if section == "videos":
                _require(video, {"id", "width", "height", "file_names"}, path, "video")
                names = video["file_names"]
                videos[video["id"]] = (count + 1, len(names), video["height"], video["width"])
                for name in names:
                    count += 1
                    yield (
                        "images",
                        {
                            "id": count,
                            "file_name": locator.find(name, folder=str(video.get("ytid", ""))),
                            "width": video["width"],
                            "height": video["height"],
                        },
                    )
        if not videos:
            raise DataError(f"{path}: lists no videos; for COCO json set format: coco")
        for section, track in stream_annotations(path):
            if section == "annotations":
                yield from _frames(track, videos, path)


def _frames(track: Record, videos: dict[int, tuple[int, int, int, int]], path: Path) -> Records:
    _require(track, {"video_id", "segmentations"}, path, "annotation")
    if track["video_id"] not in videos:
        raise DataError(
            f"{path}: annotation {track.get('id')} is on video {track['video_id']}, "
            "which is not listed"
        )
    first, frames, height, width = videos[track["video_id"]]
    if len(track["segmentations"]) != frames:
        raise DataError(
            f"{path}: annotation {track.get('id')} has {len(track['segmentations'])} "
            f"segmentations for the {frames} frames of video {track['video_id']}"
        )
    for index, segmentation in enumerate(track["segmentations"]):
        if not segmentation:
            continue
        record: Record = {
            "image_id": first + index,
            "segmentation": segmentation,
            "iscrowd": int(bool(track.get("iscrowd"))),
        }
        for key, source in (("bbox", "bboxes"), ("area", "areas")):
            values = track.get(source) or []
            if index < len(values) and values[index] is not None:
                record[key] = values[index]
        yield "annotations", _complete(record, height, width, path)


def _box(record: Record, path: Path) -> list[float]:
    _require(record, {"bbox"}, path, "annotation")
    box: list[float] = record["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        raise DataError(f"{path}: annotation {record.get('id')} has the invalid box {box}")
    return box


def _require(record: Any, keys: set[str], path: Path, kind: str) -> None:
    if not isinstance(record, dict):
        raise DataError(f"{path}: {kind} {str(record)[:80]!r} is not an object; {OTHER_FORMAT}")
    missing = [key for key in sorted(keys) if record.get(key) is None]
    if missing:
        lacks = f"{kind} {record.get('id')} lacks {', '.join(missing)}"
        raise DataError(f"{path}: {lacks}; {OTHER_FORMAT}")
    wrong = [k for k in _WHOLE_NUMBERS if k in keys and not isinstance(record[k], int)]
    if wrong:
        raise DataError(
            f"{path}: {kind} {record.get('id')} needs an integer as {wrong[0]}, "
            f"not {record[wrong[0]]!r}"
        )
