"""Google Drive, through gdown, which knows how to pass its questions about large files."""

import re
from pathlib import Path

from cuvler.download.errors import FetchError
from cuvler.extras import require_extra

_ADDRESS = re.compile(
    r"(?:gdrive:|https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:[^#]*&)?id="
    r")|https://drive\.usercontent\.google\.com/download\?(?:[^#]*&)?id=)([\w-]+)"
)


def drive_id(source: str) -> str | None:
    """Give the file's id of ``gdrive:ID`` or a Google Drive link; None for anything else."""
    match = _ADDRESS.match(source)
    return match[1] if match else None


def fetch_drive(file_id: str, part: Path) -> None:
    """Download a file of Google Drive to ``part``, going on from what gdown left there.

    Raises:
        FetchError: the file cannot be had.
        MissingExtraError: gdown is not installed.
    """
    require_extra("download")
    import gdown

    try:
        gdown.download(id=file_id, output=str(part), resume=True, retries=5, timeout=60)
    except (OSError, gdown.exceptions.DownloadError) as error:
        raise FetchError(f"Google Drive: {error}") from error
