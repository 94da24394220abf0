"""Extract and validate the boxes and masks of records for the evaluators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvler.coco_json import is_finite, to_rle
from cuvler.errors import DataError
from cuvler.masks import run_sums

Record = dict[str, Any]
Where = Callable[[int], str]  # index of a record -> its name for messages


def finite_numbers(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Convert to an array of finite numbers; return None if any value is something else."""
    try:
        array = np.array(values)
    except ValueError:  # of different lengths
        return None
    if array.size and array.dtype.kind not in "iuf":
        return None
    array = array.astype(np.float64)
    return array if np.isfinite(array).all() else None


def boxes(records: Sequence[Record], where: Where) -> list[list[float]]:
    """Return the boxes, [x, y, width, height] each.

    Raises:
        DataError: a box is missing or invalid.
    """
    # Check all at once, and one by one only to find the invalid one.
    found = finite_numbers([record.get("bbox") for record in records])
    if found is not None and found.reshape(-1, 4).shape == (len(records), 4):
        found = found.reshape(-1, 4)
        if (found[:, 2:] >= 0).all():
            as_lists: list[list[float]] = found.tolist()
            return as_lists
    return [_box(record, where(index)) for index, record in enumerate(records)]


def _box(record: Record, where: str) -> list[float]:
    box = record.get("bbox")
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise DataError(f"{where}: 'bbox' must have four numbers, not {box!r}")
    if not all(is_finite(side) for side in box) or min(box[2:]) < 0:
        raise DataError(f"{where}: invalid box {list(box)}")
    return [float(side) for side in box]


def check_inside(
    boxes: Sequence[list[float]],
    records: Sequence[Record],
    images: Mapping[int, Record],
    where: Where,
) -> None:
    """Reject boxes that start outside the image (size mismatch).

    Boxes that reach beyond the image's right or lower edge are common, and accepted.

    Raises:
        DataError: a box starts outside its image.
    """
    sizes = {
        number: (image["width"], image["height"])
        for number, image in images.items()
        if image.get("width") and image.get("height")
    }
    for index, (box, record) in enumerate(zip(boxes, records, strict=True)):
        size = sizes.get(record["image_id"])
        if size and (box[0] > size[0] or box[1] > size[1]):
            raise DataError(
                f"{where(index)}: box {box} is outside of its image of "
                f"{[size[1], size[0]]} (height, width) pixels"
            )


def ground_truth_masks(
    records: Sequence[Record], images: Mapping[int, Record], where: Where
) -> list[Any]:
    """Return the masks in compressed RLE, converted from polygons or RLE.

    Raises:
        DataError: a mask is missing, invalid, or differs in size from its image.
    """
    return [
        _ground_truth_mask(record, images[record["image_id"]], where(index))
        for index, record in enumerate(records)
    ]


def _ground_truth_mask(record: Record, image: Record, where: str) -> Any:
    segmentation = record.get("segmentation")
    if not segmentation:
        raise DataError(f"{where}: no 'segmentation'; score boxes only (IoU type bbox)")
    height, width = _size(image, where)
    if isinstance(segmentation, Mapping):
        _check_size(segmentation, [height, width], where)
    try:
        return to_rle(record, height, width)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def result_masks(
    records: Sequence[Record], images: Mapping[int, Record], where: Where
) -> list[Any]:
    """Return the masks, which must be in compressed RLE.

    Raises:
        DataError: as :func:`ground_truth_masks`.
    """
    return [
        _result_mask(record, images[record["image_id"]], where, index)
        for index, record in enumerate(records)
    ]


def _result_mask(record: Record, image: Record, where: Where, index: int) -> Any:
    rle = record.get("segmentation")
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), str | bytes):
        raise DataError(f"{where(index)}: 'segmentation' must be compressed RLE")
    if rle.get("size") != [image.get("height"), image.get("width")]:
        _check_size(rle, list(_size(image, where(index))), where(index))
    return rle


def _size(image: Record, where: str) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    if not height or not width:
        raise DataError(f"{where}: image {image['id']} has no height and width in the ground truth")
    return int(height), int(width)


def _check_size(rle: Mapping[str, Any], size: list[int], where: str) -> None:
    found = list(rle.get("size") or [])
    if found != size:
        raise DataError(f"{where}: mask of {found} (height, width) pixels on an image of {size}")


def areas(shapes: Sequence[Any], where: Where) -> list[float]:
    """Compute the areas, in pixels, of boxes or of masks in compressed RLE.

    Raises:
        DataError: a mask is not valid RLE of its size.
    """
    return [
        _mask_area(shape, where, index) if isinstance(shape, Mapping) else shape[2] * shape[3]
        for index, shape in enumerate(shapes)
    ]


def _mask_area(rle: Mapping[str, Any], where: Where, index: int) -> float:
    counts = rle["counts"]
    height, width = rle["size"]
    sums = run_sums(counts if isinstance(counts, str) else counts.decode("latin-1"))
    # pycocotools silently scores masks with too few runs.
    if sums is None or sums[0] != height * width:
        raise DataError(
            f"{where(index)}: invalid mask: its runs do not fill {width} x {height} pixels"
        )
    return float(sums[1])
