"""Single pictures on the command line, for the commands that write pictures of the same names."""

from collections import Counter
from pathlib import Path

import click

from cuvler.images import EXTENSIONS


def pictures(
    _context: click.Context, _parameter: click.Parameter, paths: tuple[Path, ...]
) -> list[Path]:
    """Put a folder's images (not those of folders in it) in its place; a click callback.

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
    return found


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
