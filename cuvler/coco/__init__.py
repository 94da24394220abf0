"""COCO json and results: reading with one set of rules, masks, and writing."""

from cuvler.coco.checker import Checker
from cuvler.coco.reader import Source, read_coco
from cuvler.coco.records import Annotation, Category, Image, Item, Needs, Section
from cuvler.coco.writer import AnnotationIds, AnnotationWriter, write_annotations

__all__ = [
    "Annotation",
    "AnnotationIds",
    "AnnotationWriter",
    "Category",
    "Checker",
    "Image",
    "Item",
    "Needs",
    "Section",
    "Source",
    "read_coco",
    "write_annotations",
]
