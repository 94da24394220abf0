"""Render HTML pages from Jinja templates."""

from typing import Any

from cuvler.progress import duration
from cuvler.report.formats import change, percent


def render(package: str, **context: Any) -> str:
    """Render ``page.html.j2`` of a package; text is escaped and undefined names are errors.

    It may import ``parts.html.j2``, the parts that pages share.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in (package, __package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "change": change, "duration": duration}
    return environment.get_template("page.html.j2").render(**context)
