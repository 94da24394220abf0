"""COCO json and its variants: LVIS, Objects365, UVO's frames and videos.

Boxes, masks, areas and the ids of images and annotations are kept, so that published result files
can be evaluated. ``iscrowd`` is kept: COCO's evaluation counts a crowd neither as a miss nor as a
false positive. LVIS has no crowds; its lists of categories that are absent or not exhaustively
annotated (``neg_category_ids``, ``not_exhaustive_category_ids``) have no meaning for a single
category. LVIS is therefore evaluated with COCO's metric: every annotated object counts, and
detections of objects that are not annotated are false positives. Whether CutLER's LVIS file
differs could not be verified.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from cuvler.coco import Annotation, Checker, Image, Needs, read_coco
from cuvler.coco.stream import OPENED, stream_file
from cuvler.coco.values import Refused, Size, file_name, image_size, missing, refused, shown, whole
from cuvler.errors import DataError
from cuvler.ground_truth.source_records import OTHER_FORMAT, Ids, Locator, Record, Records
from cuvler.masks import geometry

NEEDS = Needs(sizes=True, raw=True)


def coco_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read COCO json; of several files, with different images, only the first keeps its ids.

    Args:
        annotations: the files.
        images: the folder to which file names are relative.
        ids: not used; images have ids.

    Raises:
        DataError: a file is not COCO json, or a record is invalid; see
            :func:`cuvler.coco.read_coco`.
    """
    locator = Locator(images)
    for number, path in enumerate(annotations):
        for record in read_coco(path, NEEDS, only=("images", "annotations")):
            if isinstance(record, Image):
                yield "images", _image(record, locator, path)
            elif isinstance(record, Annotation):
                annotation = _annotation(record)
                if number > 0:  # ids are unique within one file only
                    annotation.pop("id", None)
                yield "annotations", annotation


def _image(image: Image, locator: Locator, path: Path) -> Record:
    name = image.file_name
    if name is None:
        # LVIS v1: http://images.cocodataset.org/val2017/000000397133.jpg is val2017/...
        url = image.raw.get("coco_url")
        if not isinstance(url, str):
            raise DataError(
                f"{path}: image {image.id} has no 'file_name', and no 'coco_url' like LVIS; "
                f"{OTHER_FORMAT}"
            )
        name = "/".join(url.split("/")[-2:])
    # UVO: frames are in a folder named after their video.
    return _listed(image, name, locator, image.raw, path)


def _listed(image: Image, name: str, locator: Locator, raw: Any, path: Path) -> Record:
    assert image.size is not None  # needed
    width, height = image.size
    with _naming(path, f"image {image.id}"):
        folder = file_name(raw["ytid"], "ytid") if "ytid" in raw else ""
        found = locator.find(file_name(name), folder=folder)
    return {"id": image.id, "file_name": found, "width": width, "height": height}


def _annotation(record: Annotation) -> Record:
    """Return the part of an annotation that is kept, with its box and area."""
    kept: Record = {} if record.id is None else {"id": record.id}
    kept["image_id"] = record.image_id
    area = record.area
    if record.bbox is None or (area is None and record.segmentation is not None):
        of_mask = geometry(record.rle())
        kept["bbox"] = of_mask["bbox"] if record.bbox is None else list(record.bbox)
        area = float(of_mask["area"])
    else:
        kept["bbox"] = list(record.bbox)
        area = float(record.bbox[2] * record.bbox[3]) if area is None else area
    kept |= {"area": area, "iscrowd": int(record.iscrowd or record.ignore)}
    if record.segmentation is not None:
        kept["segmentation"] = record.segmentation
    return kept


class _Video(NamedTuple):
    first: int  # image id of the first frame
    frames: int
    size: Size


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
        DataError: a file is not YouTube-VIS json, an object's video is not listed or has a
            different number of frames, or a record is invalid; see :func:`cuvler.coco.read_coco`.
    """
    locator = Locator(images)
    count = 0
    for path in annotations:
        checker = Checker(str(path), NEEDS)
        videos: dict[int, _Video] = {}
        for index, raw in enumerate(_section(path, "videos")):
            with _naming(path, f"video {index}"):
                number, video, names = _video(raw, count + 1)
                if number in videos:
                    raise Refused(f"'id' {number} is listed twice; every video needs its own id")
            videos[number] = video
            width, height = video.size
            for name in names:
                count += 1
                image = {"id": count, "file_name": name, "width": width, "height": height}
                yield "images", _listed(checker.image(image), name, locator, raw, path)
        if not videos:
            raise DataError(f"{path}: lists no videos; for COCO json set format: coco")
        for index, raw in enumerate(_section(path, "annotations")):
            yield from _frames(checker, raw, index, videos)
        checker.log()


def _section(path: Path, name: str) -> Iterator[Any]:
    for section, record in stream_file(path):
        if section == name and record is not OPENED:
            yield record


@contextmanager
def _naming(path: Path, where: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise DataError(f"{path}: {where}: {error}; {OTHER_FORMAT}") from None


def _video(raw: Any, first: int) -> tuple[int, _Video, list[str]]:
    if not isinstance(raw, dict):
        raise Refused(f"must be an object, not {shown(raw)}")
    names = raw.get("file_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise refused("file_names", names, "the names of the video's frames")
    size = image_size(raw)
    if size is None:
        raise missing("width", "the frames' width in pixels, and 'height' their height")
    return whole("id", raw.get("id")), _Video(first, len(names), size), names


def _frames(checker: Checker, raw: Any, index: int, videos: dict[int, _Video]) -> Records:
    """Yield the annotations of an object, one for each frame that shows it."""
    where = f"annotation {index}"
    with _naming(Path(checker.name), where):
        video, segmentations = _object(raw, videos)
    for frame, segmentation in enumerate(segmentations):
        if segmentation is None or segmentation == []:
            continue
        record = {"image_id": video.first + frame, "segmentation": segmentation}
        record |= {key: raw[key] for key in ("iscrowd",) if key in raw}
        for key, source in (("bbox", "bboxes"), ("area", "areas")):
            values = raw.get(source) or ()
            if frame < len(values):
                record[key] = values[frame]
        found = checker.annotation(record, where=f"{where}, frame {frame}")
        yield "annotations", _annotation(found)


def _object(raw: Any, videos: dict[int, _Video]) -> tuple[_Video, list[Any]]:
    if not isinstance(raw, dict):
        raise Refused(f"must be an object, not {shown(raw)}")
    number = whole("video_id", raw.get("video_id"))
    if number not in videos:
        raise Refused(f"'video_id' is {number}, a video that is not listed in the file")
    segmentations = raw.get("segmentations")
    if not isinstance(segmentations, list):
        raise refused("segmentations", segmentations, "a list, one for each frame")
    if len(segmentations) != videos[number].frames:
        raise Refused(
            f"{len(segmentations)} 'segmentations' for the {videos[number].frames} frames of "
            f"video {number}"
        )
    for key in ("bboxes", "areas"):
        if not isinstance(raw.get(key, []), list | NoneType):
            raise refused(key, raw[key], "a list, one for each frame")
    return videos[number], segmentations
