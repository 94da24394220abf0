"""Tables in Markdown."""

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """Return text of one line in which no character is Markdown or HTML: a name may be anything."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", line.replace("&", "&amp;"))


def grid(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are Markdown, names in them escaped by :func:`escape`."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
