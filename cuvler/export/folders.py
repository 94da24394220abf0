"""Paths of the files of each image in an exported folder."""

from pathlib import Path, PurePosixPath

from cuvler.errors import DataError


def file_for(folder: Path, file_name: str, suffix: str) -> Path:
    """Return the path of an image's file in a folder, and create the folders of its name.

    Args:
        folder: of the export.
        file_name: of the image, as in the json; its extension is replaced.
        suffix: the new extension.

    Raises:
        DataError: the name leads out of the folder, or another image has this path.
    """
    name = PurePosixPath(file_name)
    if name.is_absolute() or ".." in name.parts or not name.name:
        raise DataError(f"file_name {file_name!r} leads out of the folder to write to")
    path = folder / name.with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise DataError(
            f"file_name {file_name!r}: {name.with_suffix(suffix)} is there already, of an image of "
            "this name with another extension or of a folder; rename one of them"
        )
    return path
