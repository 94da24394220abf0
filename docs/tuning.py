"""Draw the pictures of docs/tuning.md with the page's own commands, on the demo's images.

Run in the repository root, after ``python -m demo_scenes --output demo``.
"""

import re
import shlex
import tempfile
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from cuvler.cli import cuvler

DOCS = Path(__file__).parent
_WIDTH, _HEIGHT = 900, 900  # pixels, at most
_PICTURE = re.compile(r"```sh\n(cuvler tune [^`]*)```\n\n!\[[^\]]*\]\(images/([\w-]+\.jpg)\)")


def pictures(page: Path = DOCS / "tuning.md") -> dict[str, list[str]]:
    """Return the arguments of the command of each picture: file name -> words."""
    found = _PICTURE.findall(page.read_text(encoding="utf-8"))
    return {name: shlex.split(command.replace("\\\n", ""))[1:] for command, name in found}


def draw(words: list[str]) -> Image.Image:
    """Run a command and return its picture, in a size for the page."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*words, "--output", folder]
        CliRunner().invoke(cuvler, arguments, catch_exceptions=False)
        with Image.open(next(Path(folder).glob("*.tune.png"))) as picture:
            drawn = picture.convert("RGB")
    drawn.thumbnail((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
    return drawn


if __name__ == "__main__":
    for name, words in pictures().items():
        draw(words).save(DOCS / "images" / name, quality=80, optimize=True)
