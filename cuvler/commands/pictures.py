"""Image arguments of the commands that write one picture per image."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from PIL import Image

from cuvler.errors import DataError, ImageError
from cuvler.images import EXTENSIONS, open_image

logger = logging.getLogger(__name__)


def pictures(
    _context: click.Context, _parameter: click.Parameter, paths: tuple[Path, ...]
) -> "Pictures":
    """Replace folders by their images (not of subfolders); a click callback.

    Raises:
        click.BadParameter: a folder has none, or two images have one stem.
    """
    found = []
    for path in paths:
        within = _images_in(path) if path.is_dir() else [path]
        if not within:
            raise click.BadParameter(f"{path}: no image files ({', '.join(EXTENSIONS)}) in it")
        found += within
    twice = [name for name, count in Counter(path.stem for path in found).items() if count > 1]
    if twice:
        raise click.BadParameter(f"several images are named {twice[0]}; run them one by one")
    return Pictures(found)


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)


class Pictures:
    """Iterator over images that skips those that cannot be opened."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._failed = 0

    def __iter__(self) -> Iterator[tuple[Path, Image.Image]]:
        for path in self._paths:
            try:
                image = open_image(path)
            except ImageError as error:
                logger.warning("%s", error)
                self._failed += 1
            else:
                yield path, image

    def require_all(self) -> None:
        """Check, after the iteration, that no image was skipped.

        Raises:
            DataError: images were skipped.
        """
        if self._failed:
            count = f"{self._failed} of {len(self._paths)} images"
            raise DataError(f"{count} could not be opened; the warnings name them")
