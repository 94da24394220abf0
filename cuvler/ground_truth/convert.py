"""Converting annotations of any supported format to COCO json with one category."""

import csv
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cuvler.coco import AnnotationIds, AnnotationWriter, Image, read_coco, write_annotations
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath
from cuvler.ground_truth.coco import NEEDS, coco_records, youtube_vis_records
from cuvler.ground_truth.kitti import kitti_records
from cuvler.ground_truth.open_images import open_images_records
from cuvler.ground_truth.source_records import OTHER_FORMAT, Ids, Record, Records
from cuvler.ground_truth.xml import imagenet_records, voc_records

logger = logging.getLogger(__name__)

FORMATS: dict[str, Callable[[Sequence[Path], Path, Ids], Records]] = {
    "coco": coco_records,
    "youtube_vis": youtube_vis_records,
    "voc": voc_records,
    "imagenet": imagenet_records,
    "kitti": kitti_records,
    "open_images": open_images_records,
}
# Raised when a folder is given instead of a file, or the reverse.
_OTHER_FILES = (IsADirectoryError, NotADirectoryError, PermissionError)
_Box = tuple[int, float, float, float, float]


@dataclass(frozen=True)
class Counts:
    """Counts of a ground truth; ``objects`` includes the ``ignored`` ones (crowds)."""

    images: int
    objects: int
    ignored: int


def make_ground_truth(
    path: StrPath,
    annotations: Sequence[Path],
    image_root: Path,
    *,
    format: str = "coco",
    image_lists: Sequence[Path] = (),
    extra_annotations: Sequence[Path] = (),
    ids: Ids = "order",
    masks: bool = True,
) -> Counts:
    """Write class-agnostic ground truth: every category becomes category 1, ``object``.

    Args:
        path: the COCO json to write.
        annotations: the official files, or folders of them.
        image_root: the folder that file names start from.
        format: a key of ``FORMATS``. Each module documents how it treats objects that its data
            set does not count (crowds, difficult objects, groups, unlabelled regions).
        image_lists: text files of the images to keep, one per line, with or without folder and
            extension; the rest of a line is ignored. Empty keeps all images.
        extra_annotations: COCO json with additional objects on the same images, matched by id
            (COCO*, Yang et al., unMORE). Annotations that repeat a box are skipped.
        ids: numbering of images for formats without ids.
        masks: keep masks; otherwise only boxes are written and evaluated.

    Raises:
        ConfigError: the format is unknown.
        DataError: a file is missing, damaged or of another format; an image of the lists is not
            annotated; extra annotations are on other images.
        ImageError: an image is missing or unreadable, and its size is needed.
    """
    _check(format, [*annotations, image_root, *image_lists, *extra_annotations])
    records = FORMATS[format](annotations, image_root, ids)
    if image_lists:
        records = _listed(records, image_lists)
    opening = {
        "info": {
            "description": "class-agnostic ground truth",
            "made_from": [source.name for source in [*annotations, *extra_annotations]],
            "format": format,
        },
        "categories": [{"id": 1, "name": "object"}],
    }
    with write_annotations(path, opening) as writer:
        target = _Target(writer, masks, remember=bool(extra_annotations))
        try:
            target.add(records)
        except (*_OTHER_FILES, UnicodeDecodeError, csv.Error) as error:
            names = ", ".join(str(path) for path in [*annotations, *image_lists])
            raise DataError(
                f"{names}: cannot be read as {format} ({error}); {OTHER_FORMAT}"
            ) from error
        for source in extra_annotations:
            target.add_extra(source)
        if not target.names:
            raise DataError(f"{annotations[0]}: holds no images")
        target.log(annotations[0])
    return Counts(len(target.names), writer.num_annotations, target.ignored)


def _check(format: str, sources: Iterable[Path]) -> None:
    if format not in FORMATS:
        raise ConfigError(f"format: {format!r} is not known; known: {', '.join(FORMATS)}")
    for source in sources:
        if not source.exists():
            raise DataError(f"{source}: no such file or folder")


class _Target:
    """The file being written, with the image names and boxes needed to add annotations."""

    def __init__(self, writer: AnnotationWriter, masks: bool, *, remember: bool) -> None:
        self.names: dict[int, str] = {}
        self.ignored = 0
        self._writer = writer
        self._masks = masks
        self._boxes: set[_Box] | None = set() if remember else None
        self._ids = AnnotationIds()

    def add(self, records: Records) -> None:
        for section, record in records:
            if section == "annotations":
                self._add_annotation(record)
            elif record["id"] in self.names:
                raise DataError(f"image {record['id']} is listed twice: {record['file_name']}")
            else:
                self.names[record["id"]] = record["file_name"]
                self._writer.add_image(record)

    def add_extra(self, source: Path) -> None:
        """Add annotations of a COCO json on images that are already written."""
        self._check_same_images(source)
        added = repeated = 0
        assert self._boxes is not None
        for section, record in coco_records([source], Path(), "order"):
            if section == "images":
                continue
            if _box(record) in self._boxes:
                repeated += 1
            else:
                self._add_annotation({k: v for k, v in record.items() if k != "id"})
                added += 1
        logger.info("%s: %d objects added, %d repeated", source, added, repeated)

    def log(self, source: Path) -> None:
        """Log what is unusual."""
        self._ids.log(source)
        if not self._writer.num_annotations:
            logger.warning("%s: no annotations; scores will be undefined", source)

    def _check_same_images(self, source: Path) -> None:
        for image in read_coco(source, NEEDS, only=("images",), quiet=True):
            if not isinstance(image, Image):
                continue
            ours, theirs = self.names.get(image.id), image.file_name
            if ours is None:
                raise DataError(f"{source}: image {image.id} is not in the ground truth")
            if theirs and PurePosixPath(theirs).name != PurePosixPath(ours).name:
                raise DataError(
                    f"{source}: image {image.id} is {theirs}, but {ours} in the ground truth"
                )

    def _add_annotation(self, record: Record) -> None:
        number = self._ids.unique(record.get("id"))
        written: dict[str, Any] = {"id": number, "image_id": record["image_id"], "category_id": 1}
        for key in ("bbox", "area", "iscrowd", *(["segmentation"] if self._masks else [])):
            if key in record:
                written[key] = record[key]
        self._writer.add_annotation(written)
        self.ignored += record["iscrowd"]
        if self._boxes is not None:
            self._boxes.add(_box(record))


def _box(record: Record) -> _Box:
    # Files are rounded to different numbers of digits.
    x, y, width, height = (round(float(side), 2) for side in record["bbox"])
    return (record["image_id"], x, y, width, height)


def _listed(records: Records, image_lists: Iterable[Path]) -> Records:
    """Yield only the images of the lists and their annotations."""
    wanted = {
        PurePosixPath(line.split()[0]).stem
        for path in image_lists
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    }
    if not wanted:
        raise DataError(f"{', '.join(map(str, image_lists))}: names no image")
    kept: set[int] = set()
    found: dict[str, str] = {}
    for section, record in records:
        if section == "images":
            stem = PurePosixPath(record["file_name"]).stem
            if stem not in wanted:
                continue
            if stem in found:
                raise DataError(
                    f"{found[stem]} and {record['file_name']} have the same name, so an image "
                    "list cannot distinguish them"
                )
            found[stem] = record["file_name"]
            kept.add(record["id"])
            yield section, record
        elif record["image_id"] in kept:
            yield section, record
    absent = sorted(wanted - found.keys())
    if absent:
        raise DataError(
            f"{len(absent)} images of {', '.join(map(str, image_lists))} are not annotated: "
            f"{', '.join(absent[:5])}"
        )
