"""README and docs/ as tests read them."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SITE = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "config/README.md", *SITE]


def blocks(page, language):
    """The fenced blocks of a page in one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def pages():
    return PAGES
