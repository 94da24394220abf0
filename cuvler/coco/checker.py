"""The rules of COCO's records, applied to one file's records in turn."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from cuvler.coco.records import NOTHING, Annotation, Category, Image, Needs
from cuvler.coco.refusals import label
from cuvler.coco.segmentations import check_segmentation, filled
from cuvler.coco.values import (
    INT64,
    LARGEST,
    Box,
    Refused,
    Size,
    box,
    far,
    file_name,
    finite,
    flag,
    image_size,
    is_text,
    missing,
    pixels,
    refused,
    shown,
    whole,
)
from cuvler.errors import DataError

logger = logging.getLogger(__name__)

Raw = Mapping[str, Any]
Changes = dict[str, Any]
_BITS = (0, 1)
_NUMBERS = {int, float}
_new = tuple.__new__  # of a named tuple: half the time of its own constructor
_FILE = "the name of the image's file, which `cuvler ground-truth` writes for LVIS, too"
_MASK = "it must be polygons or run-length encoding"
_FEW_CORNERS = 0.1  # share of boxes that look like corners, from which it is said


class Checker:
    """Checks the records of one file, converts what is unambiguous, and counts conversions.

    Attributes:
        name: of the file, for messages.
        sizes: image id -> (width, height), of the images so far; None where unknown.
        categories: id -> name, of the categories so far.
    """

    def __init__(
        self,
        name: str,
        needs: Needs,
        *,
        sizes: Mapping[int, Size | None] | None = None,
        categories: Mapping[int, str] | None = None,
    ) -> None:
        """Start a file.

        Args:
            name: of the file.
            needs: what the command needs.
            sizes: image id -> size, of images that the file need not list.
            categories: id -> name, of a previous pass.
        """
        self.name = name
        self.needs = needs
        self.sizes: dict[int, Size | None] = {}
        self.categories: dict[int, str] = {}
        self._known = self.categories if categories is None else categories
        self._others = sizes or {}
        self._shared: dict[Size | None, Size | None] = {}
        self._low, self._high = needs.score_limits
        self._categories = needs.categories
        self._scores = needs.scores
        # Of the current annotation's image.
        self._image_id: int | None = None
        self._size: Size | None = None
        self._shape: list[int] | None = None
        self._pixels = 0
        self._limit = self._right = self._bottom = math.inf
        self._images = self._annotations = 0
        self._conversions: dict[str, tuple[int, str]] = {}
        self._maskless = self._backslashes = self._boxes = self._beyond = self._corners = 0

    def require_scores(self, required: bool) -> None:
        """Refuse records without a score, as results must have one."""
        self._scores = self.needs.scores or required

    def image(self, raw: Any) -> Image:
        """Check an image.

        Raises:
            DataError: it breaks a rule; the message names it.
        """
        self._images += 1
        try:
            return self._image(raw)
        except Refused as error:
            raise self._named("image", self._images - 1, raw, error) from None

    def category(self, raw: Any) -> Category:
        """Check a category; errors as for :meth:`image`."""
        try:
            return self._category(raw)
        except Refused as error:
            raise self._named("category", len(self.categories), raw, error) from None

    def annotation(self, raw: Any, *, where: str = "") -> Annotation:
        """Check an annotation or a result; errors as for :meth:`image`.

        Args:
            raw: the record.
            where: its name for messages; by default its position and ids.
        """
        self._annotations += 1
        try:
            return self._annotation(raw)
        except Refused as error:
            raise self._named("annotation", self._annotations - 1, raw, error, where) from None

    def _named(self, kind: str, index: int, raw: Any, error: Refused, where: str = "") -> DataError:
        where = where or label(self.needs, kind, index, raw)
        return DataError(f"{self.name}: {where}: {error}{self.needs.again}")

    def _image(self, raw: Any) -> Image:
        changes: Changes = {}
        number = self._id(raw, "id", changes)
        if number in self.sizes:
            raise Refused(f"'id' {number} is listed twice; every image needs its own id")
        name = raw.get("file_name")
        if name is not None:
            name = file_name(name)
            self._backslashes += "\\" in name
        elif self.needs.file_names:
            raise missing("file_name", _FILE)
        size = image_size(raw)
        if size is None and self.needs.sizes:
            raise Refused("'width' and 'height' are missing; they must be those of the image")
        # Few different ones: a shared size takes a third of the memory.
        self.sizes[number] = size = self._shared.setdefault(size, size)
        return Image(number, name, size, self._kept(raw, changes))

    def _category(self, raw: Any) -> Category:
        changes: Changes = {}
        number = self._id(raw, "id", changes)
        if number in self.categories:
            raise Refused(f"'id' {number} is listed twice; every category needs its own id")
        name = raw.get("name", str(number))
        if not is_text(name):
            raise refused("name", name, "text in UTF-8")
        self.categories[number] = name
        return Category(number, name, self._kept(raw, changes))

    def _annotation(self, raw: Any) -> Annotation:
        """Check an annotation: common values here, which is faster, and all others by functions."""
        if type(raw) is not dict and not isinstance(raw, Mapping):
            raise Refused(f"must be an object, not {shown(raw)}")
        changes: Changes = {}
        get = raw.get
        image_id = get("image_id")
        if type(image_id) is not int or image_id != self._image_id:
            image_id = self._enter(self._id(raw, "image_id", changes))
        category = get("category_id")
        if type(category) is not int or self._categories or not -INT64 <= category <= INT64:
            category = self._category_id(raw, changes)
        mask, count = get("segmentation"), None
        if (
            type(mask) is dict
            and self._shape
            and (shape := mask.get("size")) == self._shape
            and type(shape[0]) is type(shape[1]) is int  # 16.0 is 16, too
        ):
            count = filled(mask.get("counts"), self._pixels)
        if count is None:
            mask, count = self._segmentation(mask, changes)
        box = get("bbox")
        if box is not None:
            box = self._box(box)
        elif mask is None:
            raise missing("bbox", "[x, y, width, height], as there is no 'segmentation' either")
        crowd, ignore = get("iscrowd", 0), get("ignore", 0)
        if type(crowd) is not int or type(ignore) is not int or (crowd | ignore) not in _BITS:
            crowd, ignore = (self._flag(key, raw, changes) for key in ("iscrowd", "ignore"))
        area = get("area")
        if type(area) is not float or not 0 <= area <= LARGEST:
            area = self._area(area, changes)
        score = get("score")
        if type(score) is not float or not self._low <= score <= self._high:
            score = self._score(raw)
        number = get("id")
        if type(number) is not int or not -INT64 <= number <= INT64:
            number = self._own_id(number)
        kept = self._kept(raw, changes) if self.needs.raw else NOTHING
        flags = crowd == 1, ignore == 1
        return _new(
            Annotation,
            (number, image_id, self._size, category, mask, count, box, area, score, *flags, kept),
        )

    def _enter(self, image_id: int) -> int:
        """Make an image the one of the next annotations, until another is named."""
        size = self.sizes.get(image_id)
        listed = self.needs.listed or self.sizes
        if size is None and image_id not in self.sizes and listed:
            raise Refused(f"'image_id' is {image_id}, an image that is not listed in the file")
        self._image_id = image_id
        self._set_size(size or self._others.get(image_id))
        return image_id

    def _set_size(self, size: Size | None) -> None:
        self._size = size
        self._limit = far(size)
        if size is None:
            self._shape, self._pixels = None, 0
            self._right = self._bottom = math.inf
        else:
            width, height = size
            self._shape, self._pixels = [height, width], height * width
            self._right, self._bottom = width + 1.0, height + 1.0

    def _segmentation(self, value: Any, changes: Changes) -> tuple[Any, int | None]:
        if value is None or value == []:
            if self.needs.masks:
                raise Refused(f"'segmentation' is missing or empty, but a box is no mask: {_MASK}")
            self._maskless += 1
            return None, None
        found, count, change = check_segmentation(value, self._size)
        if change:
            self._note("segmentation", change)
            changes["segmentation"] = found
        if self._size is None and count is not None:
            # The image's other masks must have this size, too.
            height, width = found["size"]
            self._set_size((width, height))
        return found, count

    def _box(self, stated: Any) -> Box:
        if type(stated) is list and len(stated) == 4 and _NUMBERS.issuperset(map(type, stated)):
            x, y, width, height = stated
        else:
            x, y, width, height = box(stated, self._size)
        # Not less than the largest of the four, and NaN if one is.
        if width < 0 or height < 0 or not _length(x, y, width, height) <= self._limit:
            x, y, width, height = box(stated, self._size)
        self._boxes += 1
        if x + width > self._right or y + height > self._bottom:
            self._count_beyond(x, y, width, height)
        return x, y, width, height

    def _count_beyond(self, x: float, y: float, width: float, height: float) -> None:
        """Count boxes that leave their image, and those of them that would fit as corners."""
        self._beyond += 1
        self._corners += x < width <= self._right and y < height <= self._bottom
        if self.needs.inside and (x > self._right - 1 or y > self._bottom - 1):
            raise refused("bbox", [x, y, width, height], f"in its image of {pixels(self._size)}")

    def _kept(self, raw: Raw, changes: Changes) -> Raw:
        if not self.needs.raw:
            return NOTHING
        return {**raw, **changes} if changes else raw

    def _id(self, raw: Any, key: str, changes: Changes) -> int:
        if type(raw) is not dict and not isinstance(raw, Mapping):
            raise Refused(f"must be an object, not {shown(raw)}")
        value = raw.get(key)
        if type(value) is int and -INT64 <= value <= INT64:
            return value
        if value is None:
            how = "null" if key in raw else "missing"
            raise Refused(f"{key!r} is {how}; it must be a whole number")
        return self._whole(key, value, changes)

    def _whole(self, key: str, value: Any, changes: Changes) -> int:
        number = whole(key, value)
        if isinstance(value, str | float):
            self._note(key, f"such as {shown(value)}, read as {number}")
        changes[key] = number
        return number

    def _own_id(self, value: Any) -> int | None:
        """Return an annotation's id if it can be kept; it has no meaning here."""
        try:
            return None if value is None else whole("id", value)
        except Refused:
            return None

    def _category_id(self, raw: Raw, changes: Changes) -> int | None:
        value = raw.get("category_id")
        if type(value) is not int or not -INT64 <= value <= INT64:
            if value is None and "category_id" not in raw:
                if self.needs.categories:
                    raise missing("category_id", "one of the file's categories")
                return None
            value = self._whole("category_id", value, changes)
        if self.needs.categories and value not in self._known:
            known = shown(sorted(self._known))
            raise refused("category_id", value, f"one of the categories {known}")
        return value

    def _flag(self, key: str, raw: Raw, changes: Changes) -> bool:
        value = raw.get(key, 0)
        found = flag(key, value)
        if type(value) is not bool and type(value) is not int:
            self._note(key, f"such as {shown(value)}, read as {int(found)}")
            changes[key] = int(found)
        return found

    def _area(self, value: Any, changes: Changes) -> float | None:
        if value is None:
            return None
        if value != value:
            changes["area"] = None  # JSON has no NaN
            return None
        if type(value) is int and 0 <= value <= LARGEST:
            return value
        return finite("area", value, low=0)

    def _score(self, raw: Raw) -> float | None:
        value = raw.get("score")
        if value is None and "score" not in raw:
            if self._scores:
                raise missing("score", "a finite number")
            return None
        return finite("score", value, low=self._low, high=self._high)

    def _note(self, key: str, how: str) -> None:
        count, first = self._conversions.get(key, (0, how))
        self._conversions[key] = count + 1, first

    def log(self) -> None:
        """Log what was converted, with counts, and what looks like a mistake."""
        for key, (count, first) in self._conversions.items():
            logger.warning("%s: %r converted in %d records (%s)", self.name, key, count, first)
        if self._maskless:
            logger.info("%s: %d records without a mask, boxes only", self.name, self._maskless)
        if self._backslashes:
            logger.warning(
                "%s: %d file names have backslashes, as on Windows; folders are separated by /",
                self.name,
                self._backslashes,
            )
        if self._corners > _FEW_CORNERS * self._boxes and self._corners > self._beyond / 2:
            logger.warning(
                "%s: %d of %d boxes reach beyond their images as [x, y, width, height], which "
                "'bbox' must be, but not as [x0, y0, x1, y1]",
                self.name,
                self._corners,
                self._boxes,
            )


def _length(*values: float) -> float:
    try:
        return math.hypot(*values)
    except OverflowError:
        return math.inf
