"""What mkdocs calls while it builds the site."""

import re


def on_page_content(html: str, **_: object) -> str:
    """Leave out the roles of reStructuredText that docstrings have before names."""
    return re.sub(r":(?:attr|class|func|meth|mod):(?=<code>)", "", html)
