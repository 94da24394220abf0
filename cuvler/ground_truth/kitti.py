"""KITTI's object labels: a text file an image.

``DontCare`` marks regions where objects were not labelled; KITTI's protocol (Geiger et al., CVPR
2012) does not count what is found mostly inside of them. COCO does the same with crowds, so they
become crowds. Every other type counts (Car, Van, Truck, Pedestrian, Person_sitting, Cyclist, Tram,
Misc), however truncated or occluded: the levels of difficulty are KITTI's own metric's.
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
        images: the folder of ``000000.png``, from which sizes come; they differ.
        ids: how images are numbered; see :func:`cuvler.ground_truth.source_records.number`.

    Raises:
        DataError: no labels, or a line that is none.
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
        # What is no text fails as a label, under its file's name.
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
            raise ValueError(f"{len(fields)} fields where there should be {_FIELDS}")
        left, top, right, bottom = (float(field) for field in fields[4:8])
    except ValueError as error:
        raise DataError(f"{where}: not a label of KITTI ({error}): {line!r}") from error
    return box_record(image_id, (left, top, right, bottom), size, ignore=fields[0] == "DontCare")
