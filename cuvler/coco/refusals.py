"""Errors that name a record: file, position and ids."""

from collections.abc import Mapping
from typing import Any

from cuvler.coco.records import Annotation, Image, Needs
from cuvler.coco.values import shown
from cuvler.errors import DataError
from cuvler.files import StrPath


def label(needs: Needs, kind: str, index: int, raw: Any) -> str:
    """Return a record's name for messages: its position, from 0, and its ids."""
    if kind == "annotation" and needs.format != "annotations":
        kind = "result"
    ids = [
        f"{key.replace('_', ' ').removesuffix(' id')} {shown(raw[key])}"
        for key in ("id", "image_id")
        if isinstance(raw, Mapping) and raw.get(key) is not None
    ]
    return f"{kind} {index}" + (f" ({', '.join(ids)})" if ids else "")


def refusal(
    name: StrPath, needs: Needs, index: int, record: Image | Annotation, reason: object
) -> DataError:
    """Return the error with which a command refuses a record that keeps the rules.

    Args:
        name: of the file.
        needs: what it was read with.
        index: the record's position in its section.
        record: the record.
        reason: key, value and what is allowed.
    """
    kind = "image" if isinstance(record, Image) else "annotation"
    where = label(needs, kind, index, record._asdict())
    return DataError(f"{name}: {where}: {reason}{needs.again}")
