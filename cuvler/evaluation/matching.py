"""Match results with the ground truth, and accumulate precision and recall, as COCO does.

hotcoco does both; the tests check that its numbers equal pycocotools'. It is given some images at a
time and keeps some 150 bytes a result. Its own reader of files is not used: it holds all records,
and does not check them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.evaluation.coco_files import Records
from cuvler.evaluation.compact import CompactRecords, IouType, Rows
from cuvler.extras import require_extra

_IMAGES = 250  # matched at a time
Numbers = NDArray[np.int64]
Results = list[dict[str, Any]] | NDArray[np.float64]
# Numbers of images, annotations and results, in hotcoco's formats.
Batch = tuple[Sequence[int], list[dict[str, Any]], Results]
Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def accumulate(
    truth: Records,
    results: Records,
    iou_type: IouType,
    limits: Sequence[int],
    categories: Sequence[int] | None = None,
) -> Arrays:
    """Match results with the ground truth and accumulate precision and recall.

    Args:
        truth: the ground truth.
        results: the results.
        iou_type: boxes or masks.
        limits: numbers of top-scoring detections used per image, ascending.
        categories: the category ids, ascending; by default all are one.

    Returns:
        As :func:`match`.

    Raises:
        DataError: a record has no box or mask; see :meth:`Records.require`.
    """
    truth.require(iou_type)
    results.require(iou_type)
    ids = sorted(truth.images)

    def numbers(records: CompactRecords, rows: Rows) -> tuple[Numbers, Numbers]:
        # Not the files' ids, which may be negative.
        images = np.searchsorted(ids, records.image_ids[rows]) + 1
        if categories is None:
            return images, np.ones_like(images)
        return images, np.searchsorted(categories, records.categories(rows)) + 1

    def batches() -> Iterable[Batch]:
        for start in range(0, len(ids), _IMAGES):
            chunk = ids[start : start + _IMAGES]
            images = range(start + 1, start + len(chunk) + 1)
            objects, found = truth.records.rows_of(chunk), results.records.rows_of(chunk)
            yield (
                images,
                annotations_of(truth.records, objects, iou_type, *numbers(truth.records, objects)),
                results_of(results.records, found, iou_type, *numbers(results.records, found)),
            )

    return match(batches(), iou_type, limits, 1 if categories is None else len(categories))


def annotations_of(
    records: CompactRecords, rows: Rows, iou_type: IouType, images: Numbers, categories: Numbers
) -> list[dict[str, Any]]:
    """Return some rows of the ground truth as annotations.

    ``area``, which decides between small, medium and large, is the annotation's, by default that
    of its mask, or of its box; as in COCO, for boxes and masks alike.

    Args:
        records: the ground truth.
        rows: of it.
        iou_type: boxes or masks.
        images: number of each row's image, from 1.
        categories: number of each row's category, from 1.
    """
    key, shapes = _shapes(records, rows, iou_type)
    columns = [
        # Not the file's ids, which may be repeated; pycocotools reads 0 as "not matched".
        (rows + 1).tolist(),
        images.tolist(),
        categories.tolist(),
        records.crowds[rows].astype(int).tolist(),
        records.areas(rows, iou_type).tolist(),
        shapes,
    ]
    names = ("id", "image_id", "category_id", "iscrowd", "area", key)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def results_of(
    records: CompactRecords, rows: Rows, iou_type: IouType, images: Numbers, categories: Numbers
) -> Results:
    """Return some rows of the results; arguments as for :func:`annotations_of`.

    As in detectron2, their area is that of the box if boxes are scored, and of the mask otherwise.
    """
    scores = records.scores(rows)
    if iou_type == "bbox":
        return np.column_stack([images, records.boxes(rows), scores, categories])
    columns = [images.tolist(), categories.tolist(), scores.tolist(), records.masks(rows)]
    names = ("image_id", "category_id", "score", "segmentation")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _shapes(records: CompactRecords, rows: Rows, iou_type: IouType) -> tuple[str, list[Any]]:
    if iou_type == "bbox":
        return "bbox", records.boxes(rows).tolist()
    return "segmentation", records.masks(rows)


def match(
    batches: Iterable[Batch], iou_type: IouType, limits: Sequence[int], categories: int
) -> Arrays:
    """Match results with annotations and accumulate precision and recall.

    Args:
        batches: image numbers, annotations and results of some images at a time.
        iou_type: boxes or masks.
        limits: numbers of top-scoring results used per image, ascending.
        categories: number of categories; those of records are from 1.

    Returns:
        precision of shape (10 IoU, 101 recall, categories, 4 areas, limits) and recall of
        shape (10 IoU, categories, 4 areas, limits); -1 where there is no ground truth.
    """
    require_extra("evaluation")
    from hotcoco import Params, StreamingEval

    params = Params(iou_type)
    params.max_dets = list(limits)
    listed = [{"id": number, "name": str(number)} for number in range(1, categories + 1)]
    evaluator = StreamingEval(listed, iou_type, params=params)
    for images, annotations, results in batches:
        # Sizes are required, but not used: masks are RLE.
        sizeless = [{"id": number, "height": 0, "width": 0} for number in images]
        evaluator.update(sizeless, annotations, results)
    found = evaluator.finalize()
    found.accumulate()
    arrays = found.eval
    assert arrays is not None  # after accumulate()
    return np.asarray(arrays["precision"]), np.asarray(arrays["recall"])
