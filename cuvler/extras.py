"""Optional dependencies: without them, an error names the extra to install."""

import sys
from importlib.util import find_spec

from cuvler.errors import CuvlerError

# The extras of pyproject.toml with the modules that cuvler imports from them.
EXTRAS = {
    "crf": ("pydensecrf",),
    "detector": ("cv2", "detectron2", "fvcore"),
    "download": ("gdown", "requests"),
    "evaluation": ("hotcoco",),
    "heif": ("pillow_heif",),
    "report": ("jinja2", "markupsafe", "matplotlib"),
    "workflow": ("snakemake",),
}


class MissingExtraError(CuvlerError):
    """An extra is not installed; the message has the command that installs it."""


def require_extra(name: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Raises:
        MissingExtraError: a package is not installed.
    """
    missing = [module for module in EXTRAS[name] if not _installed(module)]
    if missing:
        # detectron2 has no release on the package index.
        wheel = "./packaging/detectron2 " if name == "detector" else ""
        raise MissingExtraError(
            f"{', '.join(missing)}: not installed; run: pip install {wheel}'cuvler[{name}]'"
        )


def _installed(module: str) -> bool:
    return sys.modules.get(module) is not None or find_spec(module) is not None
