"""PASCAL VOC's XML: VOC itself, Clipart, Comic, Watercolor, and ImageNet's boxes.

VOC's protocol (Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010) leaves
objects marked ``difficult`` out of the count, whether they are found or not, and so does this:
they become crowds, COCO's one way to say so. Whether CutLER's own files count them could not be
verified. ``truncated`` and ``occluded`` objects count as any other.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree  # the user's own files; none is fetched and parsed unseen

from cuvler.errors import DataError, ImageError
from cuvler.ground_truth.source_records import Ids, Record, Records, box_record, number
from cuvler.image_status import ImageStatus
from cuvler.images import EXTENSIONS, Size, image_size

logger = logging.getLogger(__name__)

_SUFFIXES = tuple(dict.fromkeys([*EXTENSIONS, ".JPEG", ".JPG", ".PNG"]))


def voc_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read VOC's files: pixels count from 1, and a box includes its last ones.

    Args:
        annotations: folders of XML files, searched at any depth.
        images: the folder of the images, named as the XML files are.
        ids: how images are numbered; see :func:`cuvler.ground_truth.source_records.number`.

    Raises:
        DataError: no XML files, or one that is damaged.
    """
    return _records(annotations, images, ids, first_pixel=1)


def imagenet_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read the localisation files of ImageNet (ILSVRC 2012): pixels count from 0.

    Some were drawn on a picture of another size than the one that is handed out: their boxes
    are scaled from the size in the XML to that of the image, where the image is there. Images
    without an XML file were not annotated, and are left out.

    Args and errors are those of :func:`voc_records`.
    """
    return _records(annotations, images, ids, first_pixel=0)


def _records(annotations: Sequence[Path], images: Path, ids: Ids, first_pixel: int) -> Records:
    files = sorted(file for folder in annotations for file in folder.rglob("*.xml"))
    if not files:
        folders = ", ".join(map(str, annotations))
        raise DataError(f"{folders}: no XML files; unpack the annotations there")
    numbers = number([file.stem for file in files], ids)
    dropped = 0
    for file in files:
        tree = _parse(file)
        name = _image_name(tree, file, images)
        written, size = _sizes(tree, file, images / name)
        image_id = numbers[file.stem]
        yield "images", {"id": image_id, "file_name": name, "width": size[0], "height": size[1]}
        for box in _boxes(tree, file):
            record = _annotation(box, image_id, written, size, first_pixel)
            if record is None:
                dropped += 1
            else:
                yield "annotations", record
    if dropped:
        logger.warning("%d boxes without any area in their image were left out", dropped)


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()  # noqa: S314
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: not XML ({error}); unpack the annotations anew") from error


def _image_name(tree: ElementTree.Element, file: Path, images: Path) -> str:
    """Name the image beside which this file belongs: by its own name.

    The name written inside cannot be trusted (it is ``%s`` in some of ImageNet's). ImageNet's
    validation images are often sorted into folders of their class.
    """
    classes = [name.text or "" for name in tree.findall("object/name")][:1]
    folders = ["", *classes, file.parent.name]
    choices = [Path(folder, file.stem + suffix) for folder in folders for suffix in _SUFFIXES]
    found = next((choice for choice in choices if (images / choice).is_file()), None)
    if found is not None:
        return found.as_posix()
    suffix = Path(tree.findtext("filename") or "").suffix
    return file.stem + (suffix if suffix.lower() in EXTENSIONS else ".jpg")


def _sizes(tree: ElementTree.Element, file: Path, image: Path) -> tuple[Size, Size]:
    """Give the (width, height) that the boxes refer to, and those of the image."""
    try:
        written = (
            int(float(tree.findtext("size/width") or 0)),
            int(float(tree.findtext("size/height") or 0)),
        )
    except ValueError as error:
        raise DataError(f"{file}: its size is not of numbers ({error})") from error
    try:
        size = _image_size(image, written)
    except ImageError as error:
        if not all(written):
            raise DataError(f"{file}: gives no size, and neither does the image: {error}") from None
        return written, written
    # Width and height exchanged: the size was written wrongly, not the boxes.
    if not all(written) or written == size[::-1]:
        return size, size
    return written, size


def _image_size(image: Path, written: Size) -> Size:
    """Give the image's size, the way up that the boxes were drawn if the written size says so."""
    try:
        return image_size(image, written if all(written) else None)
    except ImageError as error:
        if error.status != ImageStatus.WRONG_SIZE:
            raise
        return image_size(image)


def _boxes(tree: ElementTree.Element, file: Path) -> Iterator[Record]:
    # Direct children only: the parts of a person (head, hand) have boxes too.
    for index, element in enumerate(tree.findall("object"), start=1):
        box = element.find("bndbox")
        corners = [None if box is None else box.findtext(k) for k in _CORNERS]
        try:
            values = tuple(float(corner) for corner in corners if corner is not None)
        except ValueError as error:
            raise DataError(f"{file}: object {index} has the box {corners}") from error
        if len(values) != 4:
            raise DataError(f"{file}: object {index} has no whole box (xmin, ymin, xmax, ymax)")
        difficult = (element.findtext("difficult") or "0").strip() == "1"
        yield {"corners": values, "difficult": difficult}


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _annotation(
    box: Record, image_id: int, written: Size, size: Size, first_pixel: int
) -> Record | None:
    left, top, right, bottom = box["corners"]
    across, down = size[0] / written[0], size[1] / written[1]
    # Inclusive pixels from 1 on: the last one's far edge has its own number.
    corners = (
        (left - first_pixel) * across,
        (top - first_pixel) * down,
        right * across,
        bottom * down,
    )
    return box_record(image_id, corners, size, ignore=box["difficult"])
