"""Read a COCO json for training, into memory that all processes share."""

import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path

from detectron2.utils import comm

from cuvler import __version__
from cuvler.coco import Annotation, Category, Image, Needs, read_coco
from cuvler.coco.segmentations import compressed
from cuvler.coco.stream import open_coco
from cuvler.detector.training_file import Instance, Origin, Records, write_training_file
from cuvler.download.digests import file_sha256, forget_sha256, record_sha256, recorded_sha256
from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path
from cuvler.image_access import ALLOW_OUTSIDE_VARIABLE, image_path

logger = logging.getLogger(__name__)

FILE = "annotations.arrow"
# To be raised when the file or the rules for its content change.
_FORM = 1
# Seconds until a network file system shows a file that another machine has written, as for
# Snakemake (latency-wait in profiles/slurm).
_LATENCY = 60.0
_WITH_CATEGORIES = ("images", "annotations", "categories")


def read_annotations(
    path: StrPath,
    image_root: StrPath,
    *,
    class_agnostic: bool = True,
    keep_empty: bool = False,
    folder: StrPath | None = None,
) -> Records:
    """Read a COCO json in one pass into a file, and map that into memory.

    The default score is 1; crowd annotations are left out. Memory grows with the number of images
    and annotations by some bytes each, not with their masks.

    Args:
        path: the json, as ``cuvler annotations`` writes it or an official one.
        image_root: the folder that its file names start from.
        class_agnostic: map every category to one class, "object"; otherwise each category is a
            class, even without instances.
        keep_empty: whether to train on images without annotations.
        folder: where the file is kept, as ``annotations.arrow``. It is used again for the same
            arguments and content of the json, unless its own content is damaged. By default a
            temporary file.

    Raises:
        DataError: the file is not a COCO json, a record is invalid (see
            :func:`cuvler.coco.read_coco`), an annotation has no mask, an image no size, or there
            is no image to train on.
    """
    origin = {
        "sha256": _sha256(path),
        "image_root": os.fspath(image_root),
        "class_agnostic": class_agnostic,
        "keep_empty": keep_empty,
        "allow_outside": bool(os.environ.get(ALLOW_OUTSIDE_VARIABLE)),
        "form": _FORM,
        "cuvler": __version__,
    }
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="cuvler.annotations.") as temporary:
            _write(Path(temporary, FILE), path, origin)
            return Records(Path(temporary, FILE))
    file = Path(folder, FILE)
    if (kept := _kept(file, origin)) is not None:
        return kept
    forget_sha256(file)
    with atomic_path(file) as partial:
        _write(partial, path, origin)
    record_sha256(file, file_sha256(file))
    return Records(file)


def _sha256(path: StrPath) -> str:
    with open_coco(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _kept(file: Path, origin: Origin) -> Records | None:
    """Return the records of a file that a previous run has made, if they are the same."""
    recorded = recorded_sha256(file)
    if recorded is None or not file.exists():
        return None
    if file_sha256(file) != recorded:
        logger.warning("%s: damaged; it is written again", file)
        return None
    records = Records(file)
    if records.origin != origin:
        logger.info("%s: of other annotations or settings; it is written again", file)
        return None
    logger.info("%s: used again", file)
    return records


def _write(file: Path, path: StrPath, origin: Origin) -> None:
    """Read a COCO json into a file."""
    class_agnostic = origin["class_agnostic"]
    needs = Needs(
        sections=("images", "annotations") if class_agnostic else _WITH_CATEGORIES,
        file_names=True,
        sizes=True,
        masks=True,
        highest_score=1.0,
        categories=not class_agnostic,
    )
    names: dict[int, str] = {1: "object"} if class_agnostic else {}
    labels: dict[int, int] = {}
    with write_training_file(file) as writer:
        for record in read_coco(path, needs):
            if isinstance(record, Annotation):
                if not record.iscrowd:
                    # All categories precede the annotations; without them there is one class.
                    if not (class_agnostic or labels):
                        labels = {number: label for label, number in enumerate(sorted(names))}
                    writer.add_instance(record.image_id, _instance(record, labels))
            elif isinstance(record, Image):
                assert record.size is not None  # it is needed
                name = image_path(origin["image_root"], str(record.file_name), source=path)
                writer.add_image(record.id, str(name), record.size)
            elif isinstance(record, Category) and not class_agnostic:
                names[record.id] = record.name
        if not writer.end(origin, sorted(names.items()), origin["keep_empty"]):
            raise DataError(f"{path}: no annotated image to train on")


def _instance(annotation: Annotation, labels: dict[int, int]) -> Instance:
    score = 1.0 if annotation.score is None else annotation.score
    label = labels[annotation.category_id or 0] if labels else 0
    mask = annotation.segmentation
    if mask is not None and not isinstance(mask, list):
        mask = compressed(mask)
    return Instance(mask, label, score, annotation.bbox)


def read_shared_annotations(
    path: StrPath,
    image_root: StrPath,
    *,
    class_agnostic: bool = True,
    keep_empty: bool = False,
    folder: StrPath,
) -> Records:
    """Call :func:`read_annotations` in the main process; the others map its file.

    All processes call this together.

    Args:
        path: see :func:`read_annotations`.
        image_root: see :func:`read_annotations`.
        class_agnostic: see :func:`read_annotations`.
        keep_empty: see :func:`read_annotations`.
        folder: on a file system shared by all machines.

    Raises:
        DataError: see :func:`read_annotations`; or the folder is not shared.
    """
    mine = None
    if comm.is_main_process():
        options = {"class_agnostic": class_agnostic, "keep_empty": keep_empty}
        mine = read_annotations(path, image_root, folder=folder, **options)
    origin = comm.all_gather(mine.origin if mine else None)[0]
    return _map_of_first(Path(folder, FILE), origin) if mine is None else mine


def _map_of_first(file: Path, origin: Origin) -> Records:
    """Map the file that the first process has written, once this machine sees it."""
    deadline = time.monotonic() + _LATENCY
    while True:
        records = Records(file) if file.exists() else None
        if records is not None and records.origin == origin:
            return records
        if time.monotonic() > deadline:
            raise DataError(
                f"{file}: not the one that the first process has written; the output folder must "
                "be on a file system shared by all machines"
            )
        time.sleep(0.2)


def delete_shared_annotations(folder: StrPath) -> None:
    """Delete the file; processes on other machines must no longer use it."""
    forget_sha256(Path(folder, FILE))
    Path(folder, FILE).unlink(missing_ok=True)
