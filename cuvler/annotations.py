"""Merging the shards' pseudo-masks into one COCO json that accounts for every image."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cuvler.coco_json import write_annotations
from cuvler.errors import DataError
from cuvler.files import read_json

if TYPE_CHECKING:
    import pandas as pd

CATEGORIES = [{"id": 1, "name": "object", "supercategory": "object"}]
USABLE = ("ok", "no_mask")
_NAMED = 20  # images named in an error message before it says "and N more"


def merge_shards(
    listing: "pd.DataFrame",
    shards: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    max_failed: float = 0.01,
) -> Counter[str]:
    """Merge shard files into one COCO json, one shard in memory at a time.

    Images that could not be used are listed under ``excluded`` with their status and reason.
    Annotation ids count from 1 in the order of the images, so that the result is the same,
    byte for byte, for any number of shards.

    Args:
        listing: the whole dataset, as :func:`cuvler.images.read_listing` gives it.
        shards: the files of shard 0, 1, ...
        output: the COCO json to write.
        max_failed: the largest share of excluded images that is accepted.

    Returns:
        How many images have each status.

    Raises:
        DataError: an image is missing from its shard or in the wrong one, shards were made
            with different settings, or more than ``max_failed`` of the images failed; the
            message names them.
    """
    statuses: Counter[str] = Counter()
    excluded: list[dict[str, Any]] = []
    settings = _settings(read_json(shards[0]))
    opening = {"info": settings, "licenses": [], "categories": CATEGORIES}
    with write_annotations(output, opening) as writer:
        for path, content in _checked(listing, shards):
            if (found := _settings(content)) != settings:
                raise DataError(
                    f"{path}: made with other settings than {shards[0]} "
                    f"({_differences(found, settings)}); delete the older one and run again"
                )
            for image in content["images"]:
                statuses[image["status"]] += 1
                if image["status"] in USABLE:
                    writer.add_image(_image(image))
                else:
                    excluded.append(image)
            for annotation in content["annotations"]:
                writer.add_annotation(_annotation(annotation, writer.num_annotations + 1))
        _check_failures(excluded, statuses.total(), max_failed)
        writer.closing["excluded"] = excluded
    return statuses


def _settings(content: Any) -> dict[str, Any]:
    """What a shard was made with, which must not differ between shards."""
    info = content.get("info", {}) if isinstance(content, dict) else {}
    return {key: value for key, value in info.items() if key != "shard"}


def _image(image: dict[str, Any]) -> dict[str, Any]:
    return {key: image[key] for key in ("id", "file_name", "width", "height")}


def _annotation(annotation: dict[str, Any], number: int) -> dict[str, Any]:
    return {"id": number, "category_id": 1, "iscrowd": 0, **annotation}


def _checked(
    listing: "pd.DataFrame", shards: Sequence[str | os.PathLike[str]]
) -> Iterator[tuple[str | os.PathLike[str], dict[str, Any]]]:
    """Yield each shard's content after checking that it holds the images dealt to it."""
    dealt = listing["shard"].nunique()
    if dealt and listing["shard"].max() >= len(shards):
        raise DataError(f"{len(shards)} shard files were given, but the listing has {dealt} shards")
    for number, path in enumerate(shards):
        content = read_json(path)
        try:
            found = [image["id"] for image in content["images"]]
        except (KeyError, TypeError):
            raise DataError(f"{path}: not a shard of pseudo-masks; delete it and run again") from (
                None
            )
        rows = listing[listing["shard"] == number]
        wanted = rows["image_id"].tolist()
        if found != wanted:
            names = dict(zip(wanted, rows["file_name"], strict=True))
            raise DataError(f"{path}: {_mismatch(found, names)}; delete it and run again")
        yield path, content


def _mismatch(found: list[int], names: dict[int, str]) -> str:
    known = set(found)
    if missing := [name for image_id, name in names.items() if image_id not in known]:
        return f"{len(missing)} images of the listing are missing: {_named(missing)}"
    if strange := [str(image_id) for image_id in found if image_id not in names]:
        return f"images that the listing does not have in this shard: ids {_named(strange)}"
    return "images are listed twice or out of order"


def _named(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return ", ".join(f"{key}: {one.get(key)!r} against {other.get(key)!r}" for key in keys)


def _check_failures(excluded: list[dict[str, Any]], total: int, max_failed: float) -> None:
    if len(excluded) > max_failed * total:
        named = _named(f"{image['file_name']} ({image['status']})" for image in excluded)
        raise DataError(
            f"{len(excluded)} of {total} images could not be used, more than the share of "
            f"{max_failed:g} that annotations.max_failed allows: {named}. Mend or remove them "
            "and delete the dataset's listing, or raise the limit"
        )
