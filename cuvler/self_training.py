"""Self-training: turn a detector's predictions into the annotations of the next round.

CuVLER (Arica et al., CVPR 2024) keeps predictions with a score of 0.2 or more, with the score as
the soft target. CutLER (Wang et al., CVPR 2023, section 3.4) keeps those of 0.7 or more, and the
previous annotations that no kept prediction overlaps.

Predictions keep the boxes of the box head, which are often better than the extent of the mask.
Areas are those of the masks. Predictions with an empty mask are dropped and counted: training skips
instances without pixels, and an empty mask overlaps no annotation.

The output accounts for every image. An image without annotations is in ``images`` if a record
states its size, which COCO requires; detectron2 skips it in training. Otherwise it is in
``excluded``: it cannot be trained on, so it is not opened for its size.
"""

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pycocotools import mask as coco_mask

from cuvler.annotations import CATEGORIES
from cuvler.coco import Annotation, Image, Needs, read_coco, write_annotations
from cuvler.coco.refusals import refusal
from cuvler.coco.values import Refused, Size
from cuvler.coco.writer import json_text
from cuvler.errors import DataError
from cuvler.files import StrPath, full_disk_named
from cuvler.image_status import ImageStatus
from cuvler.listing import listed_images
from cuvler.progress import with_progress

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Record = dict[str, Any]
_FOUND = Needs(format="results", masks=True, highest_score=1.0, listed=False, inside=True, raw=True)
_BEFORE = Needs(masks=True, highest_score=1.0, raw=True)

# CutLER: IoU from which a prediction replaces a previous annotation.
_MAX_IOU = 0.5


@dataclass
class Counts:
    """Numbers of records read and written.

    Attributes:
        num_predictions: all predictions.
        num_predictions_kept: predictions within the limits with a non-empty mask.
        num_predictions_empty: predictions within the limits with an empty mask, dropped.
        num_previous_kept: previous annotations that no kept prediction replaces.
    """

    num_predictions: int = 0
    num_predictions_kept: int = 0
    num_predictions_empty: int = 0
    num_previous_kept: int = 0


def cuvler_annotations(
    predictions: StrPath,
    listing: "pd.DataFrame",
    output: StrPath,
    *,
    score_threshold: float = 0.2,
    detections_per_image: int | None = None,
) -> Counts:
    """Keep predictions with a score of ``score_threshold`` or more, as soft targets.

    Records may be in any order. Files are read once, with a few images in memory at a time.

    Args:
        predictions: COCO results; polygons need the image's size, from the listing or the
            previous annotations.
        listing: that of the dataset (columns ``image_id``, ``file_name``).
        output: the COCO json to write: ``images``, ``annotations`` (ids from 1; by image, best
            first), ``info`` and ``excluded``.
        score_threshold: minimum score.
        detections_per_image: maximum number of predictions per image, the best ones, as if the
            detector had this limit.

    Raises:
        DataError: a file is not of its format, or a record is invalid (see
            :func:`cuvler.coco.read_coco`); an image is not in the listing; a prediction has no
            score from 0 to 1 or no mask; masks of an image differ in size; or no prediction has a
            score of ``score_threshold``.
    """
    return _merge(None, predictions, listing, output, score_threshold, detections_per_image)


def cutler_annotations(
    previous: StrPath,
    predictions: StrPath,
    listing: "pd.DataFrame",
    output: StrPath,
    *,
    score_threshold: float = 0.7,
    detections_per_image: int | None = 30,
) -> Counts:
    """Keep predictions of ``score_threshold`` or more, and annotations they do not replace.

    A previous annotation is kept if its mask's IoU with every kept prediction of its image is
    below 0.5. An image's predictions precede its previous annotations in the output.

    Args:
        previous: the COCO json that the detector was trained on, ours or an official one; its
            crowds are left out.
        predictions: as for :func:`cuvler_annotations`, like the other arguments and errors.
        listing: that of the dataset.
        output: the COCO json to write.
        score_threshold: minimum score.
        detections_per_image: maximum number of predictions per image.
    """
    return _merge(previous, predictions, listing, output, score_threshold, detections_per_image)


def _merge(
    previous: StrPath | None,
    predictions: StrPath,
    listing: "pd.DataFrame",
    output: StrPath,
    score_threshold: float,
    limit: int | None,
) -> Counts:
    opening = {"licenses": [], "categories": CATEGORIES}
    with (
        write_annotations(output, opening) as writer,
        full_disk_named(Path(output).parent),
        # In the output's folder: a node's local disk may be too small.
        TemporaryDirectory(dir=Path(output).parent, prefix=".") as folder,
        closing(_Spool(Path(folder, "records.sqlite"), listing)) as spool,
    ):
        if previous is not None:
            _spool_previous(spool, previous)
        counts = Counts(num_predictions=_spool_predictions(spool, predictions, score_threshold))
        excluded = []
        for image, found, before in with_progress(spool.images(), len(listing)):
            if "width" not in image:
                reason = "no prediction states its size"
                excluded.append({**image, "status": ImageStatus.NO_PREDICTION, "reason": reason})
                continue
            writer.add_image(image)
            found = found[:limit]
            kept, remaining = _with_pixels(found), _with_pixels(_not_replaced(before, found))
            counts.num_predictions_kept += len(kept)
            counts.num_predictions_empty += len(found) - len(kept)
            counts.num_previous_kept += len(remaining)
            for record in [*kept, *remaining]:
                writer.add_annotation({"id": writer.num_annotations + 1, **record})
        limits = {"score_threshold": score_threshold, "detections_per_image": limit}
        writer.closing["info"] = limits | asdict(counts)
        writer.closing["excluded"] = excluded
    return counts


_PREDICTION, _PREVIOUS = 0, 1


class _Spool:
    """Sorts the records to merge by image in a database on disk.

    Records may be added in any order, and may exceed memory.

    Attributes:
        listed: image id -> (width, height), where the listing states it.
    """

    def __init__(self, path: Path, listing: "pd.DataFrame") -> None:
        self._count = 0
        self._noted: tuple[int, Size | None] | None = None
        rows = listed_images(listing)
        self.listed = {row.image_id: row.size for row in rows if row.size}
        self._database = sqlite3.connect(path)
        # The file is temporary: no need for rollback or durability.
        self._database.executescript(
            """
            pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -64000;
            create table image (id integer primary key, name text, height, width);
            create table record (
                image integer, kind integer, rank real, number integer, content text,
                primary key (image, kind, rank, number)
            ) without rowid;
            """
        )
        names = ((row.image_id, row.file_name) for row in rows)
        self._database.executemany("insert into image (id, name) values (?, ?)", names)

    def close(self) -> None:
        self._database.close()

    def note(self, image_id: int, size: Size | None) -> None:
        """Store an image's (width, height), and check that all its records agree.

        Raises:
            Refused: they differ, or the image is not listed.
        """
        if self._noted == (image_id, size):
            return
        known = self._known(image_id)
        if known is None and size is not None:
            self._database.execute(
                "update image set width = ?, height = ? where id = ?", (*size, image_id)
            )
        elif size is not None and known != size:
            raise Refused(
                f"image {image_id} has {known and known[::-1]} pixels (height, width) elsewhere, "
                f"but {size[::-1]} by its 'segmentation', or 'height' and 'width'"
            )
        self._noted = image_id, size

    def _known(self, image_id: int) -> Size | None:
        known: tuple[Any, Any] | None = self._database.execute(
            "select width, height from image where id = ?", (image_id,)
        ).fetchone()
        if known is None:
            raise Refused(f"image {image_id} is not one of the images to train on")
        return None if known[0] is None else known

    def sized(self, annotation: Annotation) -> Annotation:
        """Return an annotation with the size of its image, which is stored.

        Raises:
            Refused: as for :meth:`note`; or the mask is polygons, and no record states the size.
        """
        if annotation.size is None:
            annotation = annotation._replace(size=self._known(annotation.image_id))
        if annotation.size is None:
            raise Refused(
                f"'width' and 'height' of image {annotation.image_id}, which polygons need, are "
                "neither in the listing nor in previous annotations; give the mask as RLE"
            )
        self.note(annotation.image_id, annotation.size)
        return annotation

    def add(self, kind: int, annotation: Annotation) -> None:
        """Add a record; predictions are sorted by score, previous annotations keep their order."""
        content: Record = {**annotation.raw, "segmentation": annotation.rle()}
        if annotation.bbox is None:
            content["bbox"] = list(annotation.box())
        rank = -(annotation.score or 0.0) if kind == _PREDICTION else 0.0
        text = json_text(content)
        values = (annotation.image_id, kind, rank, self._count, text)
        self._database.execute("insert into record values (?, ?, ?, ?, ?)", values)
        self._count += 1

    def images(self) -> Iterator[tuple[Record, list[Record], list[Record]]]:
        """Yield each image with its predictions, best first, and its previous annotations."""
        records = self._database.execute(
            "select image, kind, content from record order by image, kind, rank, number"
        )
        following = records.fetchone()
        for image_id, name, height, width in self._database.execute(
            "select id, name, height, width from image order by id"
        ):
            found: tuple[list[Record], list[Record]] = ([], [])
            while following and following[0] == image_id:
                found[following[1]].append(json.loads(following[2]))
                following = records.fetchone()
            size = {} if height is None else {"width": width, "height": height}
            yield {"id": image_id, "file_name": name, **size}, *found


def _spool_predictions(spool: _Spool, path: StrPath, score_threshold: float) -> int:
    """Add the predictions within the threshold; return the number of all predictions."""
    count = kept = 0
    highest = 0.0
    for record in read_coco(path, _FOUND, sizes=spool.listed):
        if not isinstance(record, Annotation):
            continue
        score = record.score or 0.0
        try:
            record = spool.sized(record)
            if score >= score_threshold:
                spool.add(_PREDICTION, record)
                kept += 1
        except Refused as reason:
            raise refusal(path, _FOUND, count, record, reason) from None
        count += 1
        highest = max(score, highest)
    if not kept:
        found = f"the highest of {count} is {highest:.3g}" if count else "there are no predictions"
        raise DataError(
            f"{path}: no prediction has a score of {score_threshold:g} or more ({found}); "
            "lower the score threshold or train the detector longer"
        )
    return count


def _spool_previous(spool: _Spool, path: StrPath) -> None:
    images = annotations = crowds = 0
    for record in read_coco(path, _BEFORE, only=("images", "annotations")):
        if not isinstance(record, Image | Annotation):
            continue
        try:
            if isinstance(record, Image):
                spool.note(record.id, record.size)
                images += 1
                continue
            record = spool.sized(record)
            if record.iscrowd:
                crowds += 1
            else:
                spool.add(_PREVIOUS, record)
        except Refused as reason:
            index = images if isinstance(record, Image) else annotations
            raise refusal(path, _BEFORE, index, record, reason) from None
        annotations += 1
    if crowds:
        logger.info("%s: %d crowds left out", path, crowds)


def _not_replaced(annotations: list[Record], predictions: list[Record]) -> list[Record]:
    if not annotations or not predictions:
        return annotations
    overlaps = coco_mask.iou(
        [annotation["segmentation"] for annotation in annotations],
        [prediction["segmentation"] for prediction in predictions],
        [0] * len(predictions),
    )
    best = overlaps.max(axis=1)
    return [a for a, overlap in zip(annotations, best, strict=True) if overlap < _MAX_IOU]


def _with_pixels(records: list[Record]) -> list[Record]:
    """Convert records to annotations with areas, without those of empty masks."""
    annotations = []
    for record in records:
        area = int(coco_mask.area(record["segmentation"]))
        if area:
            fixed = {"category_id": 1, "iscrowd": 0, "area": area}
            annotations.append({k: v for k, v in record.items() if k != "id"} | fixed)
    return annotations
