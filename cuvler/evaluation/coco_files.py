"""Read ground truth and results for scoring, and check that they match."""

import logging
import os
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from cuvler.coco import Annotation, Category, Image, Needs, Source, read_coco
from cuvler.coco.refusals import refusal
from cuvler.errors import DataError
from cuvler.evaluation.compact import CompactRecords, IouType
from cuvler.files import StrPath, full_disk_named

logger = logging.getLogger(__name__)

BOTH: tuple[IouType, ...] = ("bbox", "segm")
_RESULTS = Needs(format="either", sections=("annotations",), listed=False, inside=True)


@dataclass(frozen=True)
class Records:
    """Content of a file.

    Attributes:
        name: of the file, for messages.
        records: annotations or results.
        images: by id.
        category_names: by id.
        refused: the error of the first record without a box (``bbox``) or without a mask
            (``segm``).
    """

    name: str
    records: CompactRecords
    images: dict[int, Image] = field(default_factory=dict)
    category_names: dict[int, str] = field(default_factory=dict)
    refused: dict[IouType, DataError] = field(default_factory=dict)

    @property
    def category_ids(self) -> list[int]:
        """The categories, in order."""
        return sorted(self.category_names)

    def require(self, iou_type: IouType) -> None:
        """Check that every record has a box or a mask.

        Raises:
            DataError: one has no mask, or its image has no size, which its mask or box needs.
        """
        if iou_type in self.refused:
            raise self.refused[iou_type]


def read_ground_truth(
    source: Source, iou_types: Sequence[IouType] = BOTH, *, class_agnostic: bool = True
) -> Records:
    """Read a COCO annotation file, given by its path or content.

    Args:
        source: a path, or the loaded json.
        iou_types: what may be scored.
        class_agnostic: ignore categories; otherwise every annotation must have one of the file's.

    Raises:
        DataError: the file is not COCO annotations, or a record is invalid; see
            :func:`cuvler.coco.read_coco`.
    """
    needs = Needs(categories=not class_agnostic)
    found = _Reader(source, needs, "ground truth", iou_types).read()
    if not found.records:
        logger.warning("%s: no annotations: scores are undefined", found.name)
    return found


def read_results(
    source: Source,
    truth: Records,
    iou_types: Sequence[IouType] = BOTH,
    *,
    class_agnostic: bool = True,
    folder: StrPath | None = None,
) -> Records:
    """Read COCO results, or COCO annotations (pseudo-masks).

    If no annotation has a score, as in MaskCut's published file, all get score 1.

    Args:
        source: a path, or the loaded json.
        truth: the ground truth.
        iou_types: what may be scored.
        class_agnostic: ignore categories; otherwise every result must have one of the ground
            truth's.
        folder: of temporary files; by default the system's.

    Raises:
        DataError: the file has neither format; an image is not in the ground truth, or differs
            from it in file name or size; a score is missing; or a record is invalid, see
            :func:`cuvler.coco.read_coco`.
    """
    reader = _Reader(source, _RESULTS, "results", iou_types, truth=truth, folder=folder)
    found = reader.read(None if class_agnostic else truth.category_names)
    reader.check_scores()
    image_ids = np.unique(found.records.image_ids)
    _check_same_images(found, image_ids, truth)
    # Images without results are either empty or were left out: log their number.
    counts = len(found.records), len(image_ids), len(truth.images)
    logger.info("%s: %d results on %d of %d images", found.name, *counts)
    return found


class _Reader:
    """Reads a file, and keeps the errors that depend on what is scored, or on later records."""

    def __init__(
        self,
        source: Source,
        needs: Needs,
        fallback: str,
        iou_types: Sequence[IouType],
        *,
        truth: Records | None = None,
        folder: StrPath | None = None,
    ) -> None:
        self.source = source
        self.needs = needs
        self.truth = truth
        self.folder = folder or tempfile.gettempdir()
        name = str(source) if isinstance(source, str | os.PathLike) else fallback
        self.found = Records(name, CompactRecords(iou_types, folder))
        self._unscored = 0
        self._first_unscored: DataError | None = None

    def read(self, categories: Collection[int] | None = None) -> Records:
        """Read all records, those of results with one of ``categories``, if given."""
        found, images = self.found, self.truth.images if self.truth else {}
        sizes = {number: image.size for number, image in images.items()} if images else None
        with full_disk_named(self.folder):
            for record in read_coco(self.source, self.needs, name=found.name, sizes=sizes):
                if isinstance(record, Annotation):
                    if categories is not None and record.category_id not in categories:
                        assert self.truth
                        reason = f"category {record.category_id} is not in {self.truth.name}"
                        raise self._refuse(record, reason)
                    self._add(record)
                elif isinstance(record, Image):
                    found.images[record.id] = record
                elif isinstance(record, Category):
                    found.category_names[record.id] = record.name
            found.records.flush()
        return found

    def _add(self, record: Annotation) -> None:
        found = self.found
        if record.score is None:
            self._unscored += 1
            if self._first_unscored is None:
                reason = "'score' is missing; other annotations have one"
                self._first_unscored = self._refuse(record, reason)
        for iou_type, refused in found.records.add(record).items():
            if iou_type not in found.refused:
                found.refused[iou_type] = self._refuse(record, refused, before=1)

    def _refuse(self, record: Annotation, reason: object, *, before: int = 0) -> DataError:
        """Return the error that refuses a record, the next one, or one ``before``."""
        index = len(self.found.records) - before
        return refusal(self.found.name, self.needs, index, record, reason)

    def check_scores(self) -> None:
        """Check that all annotations have a score or none; read_coco requires those of results."""
        if self._first_unscored and self._unscored < len(self.found.records):
            raise self._first_unscored
        if self._unscored:
            logger.info("%s: annotations have no scores; all get score 1", self.found.name)


def _check_same_images(found: Records, image_ids: NDArray[np.int64], truth: Records) -> None:
    unlisted = set(image_ids.tolist()) - truth.images.keys()
    if unlisted:
        raise DataError(
            f"{found.name}: results for {len(unlisted)} images that {truth.name} does not list: "
            f"{_few(unlisted)}; both must have the same image ids"
        )
    for image_id in sorted(found.images.keys() & truth.images.keys()):
        image, true_image = found.images[image_id], truth.images[image_id]
        if image.size and true_image.size and image.size != true_image.size:
            sizes = [[height, width] for width, height in (image.size, true_image.size)]
            raise DataError(
                f"{found.name}: image {image_id} has {sizes[0]} (height, width) pixels, but "
                f"{sizes[1]} in {truth.name}; both must be made from the same image files"
            )
        ours, theirs = image.file_name, true_image.file_name
        # Folders may differ, because users choose the image root.
        if ours and theirs and PurePath(ours).name != PurePath(theirs).name:
            raise DataError(
                f"{found.name}: image {image_id} is {ours}, but {theirs} in {truth.name}; "
                "both must have the same image ids"
            )


def _few(ids: Iterable[int], limit: int = 5) -> str:
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:limit])) + (", ..." if len(ordered) > limit else "")
