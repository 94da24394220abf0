"""KITTI's object labels: one text file per image.

``DontCare`` marks regions where objects are not labelled. KITTI's protocol (Geiger et al., CVPR
2012) ignores detections that are mostly inside such a region, as COCO does with crowds, so they
become crowds. All other types count (Car, Van, Truck, Pedestrian, Person_sitting, Cyclist, Tram,
Misc), at any truncation or occlusion: the difficulty levels belong to KITTI's own metric.
"""

from collections.abc import Sequence
from pathlib import Path

from cuvler.errors import DataError
from cuvler.ground_truth.source_records import Ids, Record, Records, box_record, image_sizes, number

_FIELDS = 15  # type, truncated, occluded, alpha, box (4), dimensions (3), location (3), rotation


def kitti_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read KITTI's labels.

    Args:
        annotations: folders of ``000000.txt``.
        images: the folder of ``000000.png``; sizes are read from the images.
        ids: numbering of images; see :func:`cuvler.ground_truth.source_records.number`.

    Raises:
        DataError: there are no labels, or a line is not a label.
        ImageError: a labelled image is missing or unreadable.
    """
    files = sorted(file for folder in annotations for file in folder.glob("*.txt"))
    if not files:
        folders = ", ".join(map(str, annotations))
        raise DataError(f"{folders}: no label files; unpack KITTI's labels there")
    numbers = number([file.stem for file in files], ids)
    names = [f"{file.stem}.png" for file in files]
    for file, name, size in zip(files, names, image_sizes(images, names), strict=True):
        image_id = numbers[file.stem]
        yield "images", {"id": image_id, "file_name": name, "width": size[0], "height": size[1]}
        # A binary file fails as a label, with an error that names it.
        text = file.read_text(encoding="ascii", errors="replace")
        for line_number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                record = _annotation(line, f"{file}, line {line_number}", image_id, size)
                if record is not None:
                    yield "annotations", record


def _annotation(line: str, where: str, image_id: int, size: tuple[int, int]) -> Record | None:
    fields = line.split()
    try:
        if len(fields) < _FIELDS:
            raise ValueError(f"{len(fields)} fields instead of {_FIELDS}")
        left, top, right, bottom = (float(field) for field in fields[4:8])
    except ValueError as error:
        raise DataError(f"{where}: not a KITTI label ({error}): {line!r}") from error
    return box_record(image_id, (left, top, right, bottom), size, ignore=fields[0] == "DontCare")
