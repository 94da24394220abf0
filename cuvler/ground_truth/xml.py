"""PASCAL VOC's XML: VOC, Clipart, Comic, Watercolor, and ImageNet's boxes.

VOC's protocol (Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010) ignores
objects marked ``difficult``, detected or not. They become crowds, COCO's equivalent. Whether
CutLER's files count them could not be verified. ``truncated`` and ``occluded`` objects count like
all others.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree  # files of the user; none are downloaded and parsed

from cuvler.errors import DataError, ImageError
from cuvler.ground_truth.source_records import Ids, Record, Records, box_record, number
from cuvler.image_status import ImageStatus
from cuvler.images import EXTENSIONS, Size, image_size

logger = logging.getLogger(__name__)

_SUFFIXES = tuple(dict.fromkeys([*EXTENSIONS, ".JPEG", ".JPG", ".PNG"]))


def voc_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read VOC's XML files: pixels are numbered from 1, and box limits are inclusive.

    Args:
        annotations: folders of XML files, searched recursively.
        images: the folder of the images, which have the XML files' names.
        ids: numbering of images; see :func:`cuvler.ground_truth.source_records.number`.

    Raises:
        DataError: there are no XML files, or one is damaged.
    """
    return _records(annotations, images, ids, first_pixel=1)


def imagenet_records(annotations: Sequence[Path], images: Path, ids: Ids) -> Records:
    """Read ImageNet's localisation files (ILSVRC 2012): pixels are numbered from 0.

    Some boxes were drawn at another size than that of the published image. They are scaled from
    the size in the XML to the size of the image, if the image exists. Images without an XML file
    are not annotated, and are not listed.

    Arguments and errors are those of :func:`voc_records`.
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
        logger.warning("left out %d boxes without area inside their image", dropped)


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()  # noqa: S314
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: not XML ({error}); unpack the annotations again") from error


def _image_name(tree: ElementTree.Element, file: Path, images: Path) -> str:
    """Return the path of the image of an XML file, by the name of the XML file.

    The name inside the XML is not reliable: in some ImageNet files it is ``%s``. ImageNet's
    validation images are often in one folder per class.
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
    """Return the (width, height) to which the boxes refer, and that of the image."""
    try:
        written = (
            int(float(tree.findtext("size/width") or 0)),
            int(float(tree.findtext("size/height") or 0)),
        )
    except ValueError as error:
        raise DataError(f"{file}: its size is not numeric ({error})") from error
    try:
        size = _image_size(image, written)
    except ImageError as error:
        if not all(written):
            raise DataError(f"{file}: has no size, and the image cannot be read: {error}") from None
        return written, written
    # Swapped width and height: the size in the XML is wrong, not the boxes.
    if not all(written) or written == size[::-1]:
        return size, size
    return written, size


def _image_size(image: Path, written: Size) -> Size:
    """Return the image's size, in the orientation of the size in the XML if that fits."""
    try:
        return image_size(image, written if all(written) else None)
    except ImageError as error:
        if error.status != ImageStatus.WRONG_SIZE:
            raise
        return image_size(image)


def _boxes(tree: ElementTree.Element, file: Path) -> Iterator[Record]:
    # Direct children only: parts of a person (head, hand) have nested boxes.
    for index, element in enumerate(tree.findall("object"), start=1):
        box = element.find("bndbox")
        corners = [None if box is None else box.findtext(k) for k in _CORNERS]
        try:
            values = tuple(float(corner) for corner in corners if corner is not None)
        except ValueError as error:
            raise DataError(f"{file}: object {index} has the box {corners}") from error
        if len(values) != 4:
            raise DataError(f"{file}: object {index} lacks one of xmin, ymin, xmax, ymax")
        difficult = (element.findtext("difficult") or "0").strip() == "1"
        yield {"corners": values, "difficult": difficult}


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _annotation(
    box: Record, image_id: int, written: Size, size: Size, first_pixel: int
) -> Record | None:
    left, top, right, bottom = box["corners"]
    across, down = size[0] / written[0], size[1] / written[1]
    # Limits are inclusive: the far edge of pixel number p, counted from 1, is at p.
    corners = (
        (left - first_pixel) * across,
        (top - first_pixel) * down,
        right * across,
        bottom * down,
    )
    return box_record(image_id, corners, size, ignore=box["difficult"])
