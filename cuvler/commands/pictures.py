"""Image arguments of the commands that write one picture per image."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cuvler.errors import CuvlerError, DataError, ImageError
from cuvler.files import StrPath
from cuvler.image_files import ImageFile, find_files
from cuvler.images import Size, open_image

logger = logging.getLogger(__name__)


class Pictures:
    """Iterator over images that skips those that cannot be opened.

    Args:
        paths: files and folders, which are searched at any depth.
        output: the folder that is written to; it is not searched.

    Attributes:
        files: the images.
        sizes: (width, height) by path, as annotations state them; see
            :func:`cuvler.images.open_image`.

    Raises:
        DataError: see :func:`cuvler.image_files.find_files`.
    """

    def __init__(self, paths: Sequence[Path], output: StrPath) -> None:
        self.files = find_files(paths, without=output)
        self.sizes: dict[Path, Size | None] = {}
        self._unopened = 0
        self._unwritten = 0

    def __iter__(self) -> Iterator[tuple[ImageFile, Image.Image]]:
        for file in self.files:
            try:
                image = open_image(file.path, self.sizes.get(file.path))
            except ImageError as error:
                logger.warning("%s", error)
                self._unopened += 1
            else:
                yield file, image

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Continue with the next image if the files of this one cannot be written."""
        try:
            yield
        except (CuvlerError, OSError) as error:
            logger.warning("%s", error)
            self._unwritten += 1

    def require_all(self) -> None:
        """Check, after the iteration, that no image was skipped.

        Raises:
            DataError: images were skipped, or files could not be written.
        """
        counts = {"opened": self._unopened, "written": self._unwritten}
        failed = [f"{count} could not be {what}" for what, count in counts.items() if count]
        if failed:
            raise DataError(
                f"of {len(self.files)} images {' and '.join(failed)}; the warnings name them"
            )
