"""COCO json with polygons, as most tools read it, or with uncompressed run-length encoding."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvler.coco import Annotation, AnnotationIds, write_annotations
from cuvler.coco.records import NOTHING
from cuvler.export.outlines import polygons
from cuvler.export.source import Group, Source
from cuvler.export.tally import Tally
from cuvler.masks import decode, geometry, run_lengths

Add = Callable[[Group], None]
EMPTY = "empty masks"


@contextmanager
def coco_rle(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write masks as run lengths in a list; records with a box only stay so."""
    with _coco(path, source, tally, _runs) as add:
        yield add


@contextmanager
def coco_polygons(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write masks as polygons, one a piece; crowds as run lengths, as in COCO's own files.

    Polygons stay as they are. Holes are on bridges: lines passed once in each direction.
    """
    with _coco(path, source, tally, lambda record: _outlines(record, tally)) as add:
        yield add


@contextmanager
def cvat(path: Path, source: Source, tally: Tally) -> Iterator[Add]:
    """Write what CVAT's import "COCO 1.0" reads: polygons, and boxes where there is no mask.

    CVAT makes a shape of each polygon, and a group of the shapes of an object.
    """
    more = {"attributes": {"occluded": False}}
    with _coco(path, source, tally, lambda record: _outlines(record, tally), more) as add:
        yield add


@contextmanager
def _coco(
    path: Path,
    source: Source,
    tally: Tally,
    segmentation: Callable[[Annotation], Any],
    more: Mapping[str, Any] = NOTHING,
) -> Iterator[Add]:
    """Write COCO annotations; a record of which the segmentation is None is left out as empty."""
    categories = [{"id": key, "name": name} for key, name in source.classes.items()]
    opening = {"info": source.info, "licenses": [], "categories": categories}
    ids = AnnotationIds()
    with write_annotations(path, opening) as writer:

        def add(group: Group) -> None:
            image, records = group
            width, height = image.size or (None, None)
            named = {"id": image.image_id, "file_name": image.file_name}
            writer.add_image(named | {"width": width, "height": height} if width else named)
            for record in records:
                value = [] if record.segmentation is None else segmentation(record)
                if value is None:
                    tally.left_out[EMPTY] += 1
                    continue
                tally.records += 1
                writer.add_annotation(
                    {"id": ids.unique(record.id), **_fields(record, source)}
                    | {"segmentation": value}
                    | dict(more)
                )

        yield add
    ids.log(source.path)


def _fields(record: Annotation, source: Source) -> dict[str, Any]:
    """Return all of a record but its id and its segmentation."""
    box, area = record.box(), record.area
    if area is None:
        area = box[2] * box[3] if record.segmentation is None else geometry(record.rle())["area"]
    found = {
        **record.raw,
        "image_id": record.image_id,
        "category_id": source.class_id(record),
        "bbox": box,
        "area": area,
        "iscrowd": int(record.iscrowd),
    }
    if record.ignore:
        found["ignore"] = 1
    return found if record.score is None else found | {"score": record.score}


def _runs(record: Annotation) -> dict[str, Any]:
    rle = record.rle()
    return {"size": rle["size"], "counts": run_lengths(rle["counts"]).tolist()}


def _outlines(record: Annotation, tally: Tally) -> Any:
    """Return a record's polygons, or a crowd's run lengths; None if the mask is empty."""
    if record.iscrowd:
        return _runs(record)
    if isinstance(record.segmentation, list):
        return record.segmentation
    rle = record.rle()
    found = polygons(decode(rle))
    if not found:
        return None
    height, width = rle["size"]
    tally.measure(rle, found, (width, height))
    return found
