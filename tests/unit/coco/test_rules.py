"""Every rule of COCO's records through every command that reads them.

``python tests/unit/coco/test_rules.py`` writes the tables, docs/coco-rules.md.
"""

import contextlib
import importlib.util
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cuvler.errors import DataError

_spec = importlib.util.spec_from_file_location("commands", Path(__file__).parent / "commands.py")
commands = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(commands)

REFUSED, CONVERTED, RIGHT, UNREAD = "refused", "converted", "right", "not read"
IMAGES_ONLY = {"images": UNREAD}


@dataclass
class Rule:
    """A change of a good file, and what becomes of it.

    Attributes:
        title: of the table's row.
        change: edits the content, or returns the file's text.
        outcome: of all commands but the exceptions.
        key: what the message of a refusal names.
        but: command -> another outcome.
        same_as: the change that gives the same, where the file is read; by default none.
    """

    title: str
    change: Any
    outcome: str
    key: str = ""
    but: dict[str, str] = field(default_factory=dict)
    same_as: Any = lambda content: None


def _set(section, index, **values):
    def change(content):
        record = content[section][index] if section else content[index]
        record.update(values)

    return change


def _drop(section, index, *keys):
    def change(content):
        record = content[section][index] if section else content[index]
        for key in keys:
            del record[key]

    return change


def _all(*changes):
    def change(content):
        for one in changes:
            one(content)

    return change


FIRST, SECOND = ("annotations", 0), ("annotations", 1)
IMAGE = ("images", 0)
RLE = commands.rectangle(4, 4, 9, 14)["segmentation"]
NO_CATEGORY = dict.fromkeys(
    ("ground-truth", "evaluation", "compare", "self-training", "report"), RIGHT
)
# Of an annotation among others that have masks.
MASKLESS = dict.fromkeys(("detector", "self-training", "evaluation", "compare"), REFUSED)
WITHOUT_SIZE = dict.fromkeys(("images", "splits", "report"), RIGHT)


def _short(text):
    return text if len(text) <= 40 else text[:37] + "..."


def _values(title, key, outcome, record, values, but=None, same_as=None):
    """Rules for several values of one key of a record."""
    return [
        Rule(
            f"{title} {_short(json.dumps(value))}",
            _set(*record, **{key: value}),
            outcome,
            f"'{key}'",
            but or {},
            **({"same_as": same_as} if same_as else {}),
        )
        for value in values
    ]


BIG = 2**63
UNLISTED = [None, [1], "one", True, BIG, 1.5, -math.inf, {}]

ANNOTATION_RULES = [
    *_values("image `id`", "id", CONVERTED, IMAGE, ["1", 1.0]),
    *_values("image `id`", "id", REFUSED, IMAGE, UNLISTED),
    Rule("image `id` missing", _drop(*IMAGE, "id"), REFUSED, "'id'"),
    Rule("image `id` listed twice", _set("images", 1, id=1), REFUSED, "'id' 1 is listed twice"),
    *_values("`image_id`", "image_id", CONVERTED, FIRST, ["1", 1.0], IMAGES_ONLY),
    *_values("`image_id`", "image_id", REFUSED, FIRST, [*UNLISTED, 99], IMAGES_ONLY),
    Rule("`image_id` missing", _drop(*FIRST, "image_id"), REFUSED, "'image_id'", IMAGES_ONLY),
    *_values("`category_id`", "category_id", CONVERTED, FIRST, ["1", 1.0], IMAGES_ONLY),
    *_values("`category_id`", "category_id", REFUSED, FIRST, UNLISTED, IMAGES_ONLY),
    Rule(
        "`category_id` 9, unknown",
        _set(*FIRST, category_id=9),
        REFUSED,
        "'category_id'",
        NO_CATEGORY | IMAGES_ONLY,
    ),
    Rule(
        "`category_id` missing",
        _drop(*FIRST, "category_id"),
        REFUSED,
        "'category_id'",
        NO_CATEGORY | IMAGES_ONLY,
    ),
    *[
        Rule(
            f"category `id` {json.dumps(value)}",
            _set("categories", 0, id=value),
            REFUSED,
            "'id'",
            dict.fromkeys(("images", "ground-truth", "self-training"), UNREAD),
        )
        for value in (None, [1], "x", 2)
    ],
    *_values(
        "category `name`",
        "name",
        REFUSED,
        ("categories", 0),
        [None, 5, "\ud800"],
        dict.fromkeys(("images", "ground-truth", "self-training"), UNREAD),
    ),
    Rule(
        "NaN in a key without rules, copied or not",
        _set(*FIRST, attributes={"x": math.nan}),
        RIGHT,
        "'attributes'",
        {"splits": REFUSED, "self-training": REFUSED} | IMAGES_ONLY,
    ),
    Rule(
        "`annotations` twice",
        lambda content: json.dumps(content)[:-1] + ', "annotations": []}',
        REFUSED,
        "'annotations' is there twice",
    ),
    Rule("zero bytes at the end", lambda content: json.dumps(content).encode() + bytes(9), REFUSED),
    *_values(
        "annotation `id`", "id", RIGHT, SECOND, [None, 11, "11", "a-1", [1], BIG], IMAGES_ONLY
    ),
    Rule("annotation `id` missing", _drop(*FIRST, "id"), RIGHT, "", IMAGES_ONLY),
    *_values("`iscrowd`", "iscrowd", RIGHT, FIRST, [False], IMAGES_ONLY),
    *_values("`iscrowd`", "iscrowd", RIGHT, FIRST, [True], IMAGES_ONLY, _set(*FIRST, iscrowd=1)),
    Rule("`iscrowd` missing", _drop(*FIRST, "iscrowd"), RIGHT, "", IMAGES_ONLY),
    *_values("`iscrowd`", "iscrowd", CONVERTED, FIRST, ["0", "false", 0.0], IMAGES_ONLY),
    *_values(
        "`iscrowd`",
        "iscrowd",
        CONVERTED,
        FIRST,
        ["1", "true"],
        IMAGES_ONLY,
        _set(*FIRST, iscrowd=1),
    ),
    *_values("`iscrowd`", "iscrowd", REFUSED, FIRST, [None, "", [], 2, -1, "no"], IMAGES_ONLY),
    *_values("polygon", "segmentation", CONVERTED, FIRST, commands.POLYGON, IMAGES_ONLY),
    Rule(
        "polygons, one of two points",
        _set(*FIRST, segmentation=[[1, 1, 5, 5], *commands.POLYGON]),
        CONVERTED,
        "",
        IMAGES_ONLY,
    ),
    Rule("RLE in a list", _set(*SECOND, segmentation=[RLE]), CONVERTED, "", IMAGES_ONLY),
    Rule(
        "RLE with counts `\"b'...'\"`",
        _set(*SECOND, segmentation=RLE | {"counts": str(RLE["counts"].encode())}),
        CONVERTED,
        "",
        IMAGES_ONLY,
    ),
    Rule(
        "uncompressed RLE",
        _set(
            *SECOND,
            segmentation={"size": [HEIGHT := commands.HEIGHT, commands.WIDTH], "counts": [320]},
        ),
        RIGHT,
        "",
        IMAGES_ONLY | {"splits": RIGHT},
        same_as=_set(*SECOND, segmentation={"size": [HEIGHT, commands.WIDTH], "counts": [320]}),
    ),
    *[
        Rule(
            f"no mask: `segmentation` {json.dumps(value)}",
            _set(*SECOND, segmentation=value),
            RIGHT,
            "'segmentation'",
            IMAGES_ONLY | MASKLESS,
            same_as=_drop(*SECOND, "segmentation"),
        )
        for value in (None, [])
    ],
    *_values(
        "`segmentation`",
        "segmentation",
        REFUSED,
        FIRST,
        [
            {},
            "",
            5,
            "abc",
            [[1, 2, 3, 4]],
            [[1, 1, 2, 2, 3]],
            [[1, 2, 3, 4, 5, 6, 7]],
            [[]],
            [RLE] * 2,
        ],
        IMAGES_ONLY,
    ),
    *_values(
        "coordinates in `segmentation`",
        "segmentation",
        REFUSED,
        FIRST,
        [[[1, 2, 3, 4, 5, value]] for value in (None, "6", math.nan, math.inf, 1e9, 10**400)],
        IMAGES_ONLY,
    ),
    *_values(
        "RLE as `segmentation`",
        "segmentation",
        REFUSED,
        SECOND,
        [
            {"size": [20, 16], "counts": RLE["counts"]},
            {"size": [16, 20], "counts": RLE["counts"][:-1]},
            {"size": [16, 20], "counts": [300]},
            {"size": [16, 20], "counts": [-1, 321]},
            {"size": [16, 20]},
            {"size": [16, 20], "countw": RLE["counts"]},
            {"size": None, "counts": RLE["counts"]},
            {"size": [16.0, 20.0], "counts": RLE["counts"]},
            {"size": [10**9, 10**9], "counts": [10**18]},
        ],
        IMAGES_ONLY,
    ),
    *_values("`bbox`", "bbox", RIGHT, SECOND, [None], IMAGES_ONLY),
    Rule("`bbox` missing", _drop(*SECOND, "bbox"), RIGHT, "", IMAGES_ONLY),
    *_values(
        "`bbox`",
        "bbox",
        REFUSED,
        SECOND,
        [
            *(["4", "4", "5", "5"], [4, 4, -5, 5], [4, 4, 5], [4, 4, 5, None], 5, []),
            *([math.nan, 4, 5, 5], [4, 4, 5, 1e9], [4, 4, 5, 10**400], "4 4 5 5"),
        ],
        IMAGES_ONLY,
    ),
    Rule(
        "no `bbox`, and no mask",
        _drop(*SECOND, "bbox", "segmentation"),
        REFUSED,
        "",
        IMAGES_ONLY,
    ),
    *_values("`area`", "area", RIGHT, SECOND, [None, math.nan], IMAGES_ONLY),
    Rule("`area` missing", _drop(*SECOND, "area"), RIGHT, "", IMAGES_ONLY),
    *_values("`area`", "area", REFUSED, SECOND, ["50", -1, math.inf, [50], True], IMAGES_ONLY),
    *_values("`score`", "score", REFUSED, FIRST, ["0.5", None, math.nan, [1], True], IMAGES_ONLY),
    Rule(
        "`score` 1.5",
        _set(*FIRST, score=1.5),
        RIGHT,
        "'score'",
        IMAGES_ONLY | {"detector": REFUSED, "self-training": REFUSED},
        same_as=_set(*FIRST, score=1.5),
    ),
    *_values("image `width`", "width", RIGHT, IMAGE, [20.0]),
    *_values("image `width`", "width", REFUSED, IMAGE, ["20", 0, -1, 20.5, None, math.inf, 10**12]),
    Rule(
        "image `width` and `height` missing",
        _drop(*IMAGE, "width", "height"),
        REFUSED,
        "'width'",
        WITHOUT_SIZE,
        same_as=_drop(*IMAGE, "width", "height"),
    ),
    *_values(
        "`file_name`", "file_name", REFUSED, IMAGE, [5, "", "a\0b", "\ud800", ["1.jpg"], "x" * 256]
    ),
    Rule(
        "`file_name` missing",
        _drop(*IMAGE, "file_name"),
        REFUSED,
        "'file_name'",
        dict.fromkeys(("splits", "evaluation", "compare", "self-training"), RIGHT),
        same_as=_drop(*IMAGE, "file_name"),
    ),
    Rule("an image that is no object", lambda c: c["images"].append(7), REFUSED, "not 7"),
    Rule(
        "an annotation that is no object",
        lambda c: c["annotations"].append([1]),
        REFUSED,
        "not [1]",
        IMAGES_ONLY,
    ),
    Rule("no `images`", lambda c: c.pop("images") and None, REFUSED, "'images'"),
    Rule("`images` null", lambda c: c.update(images=None), REFUSED, "'images'"),
    Rule("`annotations` an object", lambda c: c.update(annotations={}), REFUSED, "'annotations'"),
    Rule("annotations before images", lambda c: _reorder(c), RIGHT),
    Rule("a list: results", lambda c: "[]", REFUSED, "COCO results"),
    Rule("UTF-8 with a byte order mark", lambda c: json.dumps(c).encode("utf-8-sig"), RIGHT),
    Rule("UTF-16", lambda c: json.dumps(c).encode("utf-16"), REFUSED, "UTF-16"),
    Rule(
        "latin-1", lambda c: json.dumps(c).encode().replace(b"cat", b"c\xe9t"), REFUSED, "latin-1"
    ),
    Rule("truncated", lambda c: json.dumps(c)[:-40], REFUSED, "not valid"),
    Rule("100,000 levels deep", lambda c: '{"a":' + "[" * 100_000, REFUSED, "nested"),
]


def _reorder(content):
    images = content.pop("images")
    content["images"] = images


ONE = (None, 0)
RESULT_RULES = [
    *_values("`image_id`", "image_id", CONVERTED, ONE, ["1", 1.0]),
    *_values("`image_id`", "image_id", REFUSED, ONE, UNLISTED),
    *_values("`category_id`", "category_id", CONVERTED, ONE, ["1"]),
    *_values("`category_id`", "category_id", REFUSED, ONE, [None, [1], "cat"]),
    *_values("`score`", "score", REFUSED, ONE, ["0.9", None, math.nan, math.inf, [1], True]),
    Rule("`score` missing", _drop(*ONE, "score"), REFUSED, "'score'"),
    Rule(
        "`score` 1.5",
        _set(*ONE, score=1.5),
        RIGHT,
        "'score'",
        {"self-training": REFUSED},
        same_as=_set(*ONE, score=1.5),
    ),
    Rule(
        "polygons",
        _set(*ONE, segmentation=[[2, 2, 11, 2, 11, 10, 2, 10]]),
        RIGHT,
    ),
    *_values("polygon", "segmentation", CONVERTED, ONE, [[2, 2, 11, 2, 11, 10, 2, 10]]),
    *_values(
        "`segmentation`",
        "segmentation",
        REFUSED,
        ONE,
        [
            *({}, [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 1e9]], {"size": [16, 20], "countw": "0"}),
            *({"size": [20, 16], "counts": [320]}, {"size": [16, 20], "counts": [1]}, "abc"),
        ],
    ),
    *[
        Rule(
            f"no mask: `segmentation` {json.dumps(value)}",
            _set(*ONE, segmentation=value),
            RIGHT,
            "'segmentation'",
            MASKLESS,
            same_as=_drop(*ONE, "segmentation"),
        )
        for value in (None, [])
    ],
    *_values("`bbox`", "bbox", RIGHT, ONE, [None]),
    Rule("`bbox` missing", _drop(*ONE, "bbox"), RIGHT),
    *_values(
        "`bbox`", "bbox", REFUSED, ONE, [["2", 2, 9, 8], [2, 2, -9, 8], [math.nan, 2, 9, 8], []]
    ),
    Rule(
        "`bbox` that starts outside its image",
        _set(*ONE, bbox=[21, 2, 3, 3]),
        REFUSED,
        "'bbox'",
        {"report": RIGHT},
        same_as=_set(*ONE, bbox=[21, 2, 3, 3]),
    ),
    Rule(
        "an image that is not listed",
        _set(*ONE, image_id=3),
        REFUSED,
        "3",
        {"report": RIGHT},
        same_as=lambda c: c.pop(0) and None,
    ),
    Rule("a result that is no object", lambda c: c.append(7), REFUSED, "not 7"),
    Rule("truncated", lambda c: json.dumps(c)[:-9], REFUSED, "not valid"),
    Rule("UTF-16", lambda c: json.dumps(c).encode("utf-16"), REFUSED, "UTF-16"),
]


class _Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.found = []

    def emit(self, record):
        self.found.append(record.getMessage())


@contextlib.contextmanager
def warnings_of(name="cuvler.coco.checker"):
    handler = _Warnings()
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield handler.found
    finally:
        logger.removeHandler(handler)


def outcome(run, path, good):
    """What a command makes of a file, its result or message, and what it has logged."""
    with warnings_of() as warned:
        try:
            found = run(path, good)
        except DataError as error:
            return REFUSED, str(error), warned
    return CONVERTED if any("converted" in one for one in warned) else RIGHT, found, warned


def check(rule, command, run, name, content, folder):
    """Run a rule through a command, and return the outcome after checking it."""
    good = commands.good_files(folder)
    expected = rule.but.get(command, rule.outcome)
    path = commands.write(folder / "changed", name, commands.changed(content, rule.change))
    found, result, warned = outcome(run, path, good)
    if expected == REFUSED:
        assert found == REFUSED, (found, result)
        assert f"{name}.json: " in result
        assert rule.key in result
        assert len(result) < 600
        return found
    same = commands.changed(content, lambda c: None if expected == UNREAD else rule.same_as(c))
    path = commands.write(folder / "same", name, same)
    reference = outcome(run, path, good)
    assert found != REFUSED, result
    assert result == reference[1]
    if expected == UNREAD:
        assert found == RIGHT
        return UNREAD
    # The report reads a file several times, and leaves the word to the stages before it.
    assert found == (RIGHT if command == "report" else expected), warned
    assert len(warned) == (found == CONVERTED)
    return expected


CASES = [
    pytest.param(rule, command, name, content, run, id=f"{name}-{command}-{rule.title}"[:150])
    for name, rules, runs, content in (
        ("annotations", ANNOTATION_RULES, commands.READ_ANNOTATIONS, commands.annotations()),
        ("results", RESULT_RULES, commands.READ_RESULTS, commands.results()),
    )
    for rule in rules
    for command, run in runs.items()
]


@pytest.mark.parametrize(("rule", "command", "name", "content", "run"), CASES)
def test_a_rule_holds_in_a_command(rule, command, name, content, run, tmp_path):
    check(rule, command, run, name, content, tmp_path)


def table(name, rules, runs):
    """The table rules x commands, in Markdown; values of a key with equal outcomes share a row."""
    rows = {}
    for rule in rules:
        cells = [rule.but.get(command, rule.outcome) for command in runs]
        key, _, value = rule.title.rpartition("` ")
        values = rows.setdefault((key or rule.title, *cells), [])
        values += [f"`{value}`" if value not in _WORDS else value] if key else []
    lines = [f"| {name} | {' | '.join(runs)} |", "|---" * (len(runs) + 1) + "|"]
    for (key, *cells), values in rows.items():
        title = f"{key}` {', '.join(values)}" if values else key
        lines.append(f"| {title.replace('|', chr(92) + '|')} | {' | '.join(cells)} |")
    return "\n".join(lines)


_WORDS = (
    *("an object", "twice", "missing", "listed twice", "9, unknown"),
    "that starts outside its image",
)
PAGE = Path(__file__).parents[3] / "docs/coco-rules.md"


def page():
    """The page of the documentation."""
    tables = [
        table("annotations", ANNOTATION_RULES, commands.READ_ANNOTATIONS),
        table("results", RESULT_RULES, commands.READ_RESULTS),
    ]
    return "\n\n".join([INTRODUCTION, *tables]) + "\n"


INTRODUCTION = """# COCO rules by command

What every command makes of a file with one changed value:

- *refused*: an error that names the file, the record, the key and the value.
- *converted*: read as it was meant, with one warning a file. `report` reads its files again, and
  leaves the warning to the stages before it.
- *right*: the same result as from the usual form.
- *not read*: the command needs nothing of that record.

The detector is class-aware here, as in fine-tuning, and `self-training` reads these as its previous
annotations. [Files](files.md#coco-files-you-bring) has the rules in words;
`tests/unit/coco/test_rules.py` runs each cell, and writes this page if it is run by itself."""


def test_the_page_of_the_documentation_has_these_rules():
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
