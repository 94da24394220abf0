"""Hooks for mkdocs."""

import re


def on_page_content(html: str, **_: object) -> str:
    """Remove the reStructuredText roles before names in docstrings."""
    return re.sub(r":(?:attr|class|func|meth|mod):(?=<code>)", "", html)
