"""Downloads from Google Drive by gdown, which handles its confirmation of large files."""

import re
from pathlib import Path

from cuvler.download.errors import FetchError
from cuvler.extras import require_extra

_ADDRESS = re.compile(
    r"(?:gdrive:|https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:[^#]*&)?id="
    r")|https://drive\.usercontent\.google\.com/download\?(?:[^#]*&)?id=)([\w-]+)"
)


def drive_id(source: str) -> str | None:
    """Return the file id of ``gdrive:ID`` or a Google Drive link; None for anything else."""
    match = _ADDRESS.match(source)
    return match[1] if match else None


def fetch_drive(file_id: str, part: Path) -> None:
    """Download a file from Google Drive to ``part``, resuming a partial download.

    Raises:
        FetchError: the download fails.
        MissingExtraError: gdown is not installed.
    """
    require_extra("download")
    import gdown

    try:
        gdown.download(id=file_id, output=str(part), resume=True, retries=5, timeout=60)
    except (OSError, gdown.exceptions.DownloadError) as error:
        raise FetchError(f"Google Drive: {error}") from error
