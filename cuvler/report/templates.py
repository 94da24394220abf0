"""Render HTML pages from Jinja templates."""

from typing import Any

from cuvler.progress import duration
from cuvler.report.formats import change, percent


def render(package: str, **context: Any) -> str:
    """Render ``page.html.j2`` of a package; text is escaped and undefined names are errors."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "change": change, "duration": duration}
    return environment.get_template("page.html.j2").render(**context)
