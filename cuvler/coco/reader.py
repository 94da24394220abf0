"""Reading COCO json and results: one pass, one set of rules for all commands."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from cuvler.coco.checker import Checker
from cuvler.coco.records import Item, Needs, Section
from cuvler.coco.stream import OPENED, RESULTS, stream_content, stream_file
from cuvler.coco.values import Size
from cuvler.errors import DataError
from cuvler.files import StrPath

Source = StrPath | Mapping[str, Any] | list[dict[str, Any]]
_Pairs = Iterator[tuple[str, Any]]
_LIST = "COCO results (a list)"
_OBJECT = "COCO annotations (an object with 'images' and 'annotations')"


def read_coco(
    source: Source,
    needs: Needs,
    *,
    name: str = "",
    only: Collection[str] = (),
    sizes: Mapping[int, Size | None] | None = None,
    categories: Mapping[int, str] | None = None,
    quiet: bool = False,
) -> Iterator[Item]:
    """Yield the checked records of a COCO json or of COCO results in the file's order.

    Images, and categories if needed, precede the annotations even if the file has another order,
    which costs a second pass. Memory grows with the number of images alone.

    Ids are whole numbers within 64 bits, also written as text or with a decimal point; those of
    images and categories are unique. ``iscrowd`` is 0 or 1, also as text. A segmentation is
    polygons, or RLE that fills its image; a box is four finite numbers with sides of 0 or more;
    one of both is there. Coordinates are near the image. Areas and scores are finite numbers. What
    is converted is logged once, with a count, at the end.

    Args:
        source: a path, or the loaded json.
        needs: what the command needs beyond that.
        name: of a loaded json, for messages.
        only: yield the records of these sections alone; the others are neither checked nor counted.
        sizes: image id -> (width, height), of images that the file itself need not list.
        categories: id -> name, of a previous pass.
        quiet: do not log conversions, as in a second pass.

    Raises:
        DataError: the file cannot be read, or a record breaks a rule; the message has the file,
            the record's position (from 0) and ids, the key, the value and what is allowed.
    """
    name = str(source) if isinstance(source, str | os.PathLike) else name
    checker = Checker(name, needs, sizes=sizes, categories=categories)
    opened: set[str] = set()

    def stream() -> _Pairs:
        return _stream(source, needs, name)

    ahead = _ahead(needs, only, categories)
    for section, record in _ordered(stream, set(ahead)):
        if record is OPENED:
            _check_format(name, needs, is_list=section == RESULTS)
            checker.require_scores(section == RESULTS)
            opened.add(section)
            if section == "annotations" and ahead:
                _require(name, needs, opened, sorted(ahead))
        elif only and section not in only:
            continue
        elif section == "annotations" or section == RESULTS:
            yield checker.annotation(record)
        elif section == "images":
            yield checker.image(record)
        elif section == "categories":
            yield checker.category(record)
        else:
            yield Section(section, record)
    if RESULTS not in opened:
        _check_format(name, needs, is_list=False)
        _require(name, needs, opened, needs.sections)
    if not quiet:
        checker.log()


def _stream(source: Source, needs: Needs, name: str) -> _Pairs:
    if isinstance(source, str | os.PathLike):
        return stream_file(source, made_here=needs.made_here)
    try:
        return stream_content(source)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None


def _ahead(needs: Needs, only: Collection[str], categories: Mapping[int, str] | None) -> set[str]:
    """Return the sections without which annotations cannot be checked."""
    if only and "annotations" not in only:
        return set()
    return {"images", "categories"} if needs.categories and categories is None else {"images"}


def _ordered(stream: Callable[[], _Pairs], needed: set[str]) -> _Pairs:
    """Yield sections and records with the needed ones in front of the annotations."""
    pairs = stream()
    for section, record in pairs:
        if section == "annotations":
            early = set(needed)
            if not early:
                yield section, record
                yield from pairs  # the rest, quickly
                return
            yield from (pair for pair in stream() if pair[0] in early)
            yield section, record
            yield from (pair for pair in pairs if pair[0] not in early)
            return
        needed.discard(section)
        yield section, record


def _require(name: str, needs: Needs, opened: set[str], sections: Iterable[str]) -> None:
    for section in sections:
        if section in needs.sections and section not in opened:
            raise DataError(f"{name}: not {_OBJECT}: it has no {section!r}{needs.again}")


def _check_format(name: str, needs: Needs, *, is_list: bool) -> None:
    if needs.format == ("annotations" if is_list else "results"):
        found, expected = (_LIST, _OBJECT) if is_list else (_OBJECT, _LIST)
        raise DataError(f"{name}: {found} in place of {expected}; were two files swapped?")
