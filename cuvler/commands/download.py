"""``cuvler download``: download published weights, annotations and images, or other files."""

import difflib
import logging
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import click

from cuvler.commands import options
from cuvler.errors import ConfigError

if TYPE_CHECKING:
    from cuvler.download import PublishedFile

logger = logging.getLogger(__name__)


@click.command("download")
@click.argument("sources", nargs=-1, metavar="[NAME|URL|gdrive:ID]...")
@options.downloads()
@click.option("--output", type=Path, help="The file to write, for a single source.")
@options.sha256("The expected SHA-256, for a single source; another digest is an error.")
@click.option(
    "--unpack",
    type=Path,
    metavar="FOLDER",
    help="Also unpack archives: known ones into their folder under this root of all datasets, "
    "others into this folder itself.",
)
def command(
    sources: tuple[str, ...],
    folder: Path,
    output: Path | None,
    sha256: str | None,
    unpack: Path | None,
) -> None:
    """Download published files by name, or others by URL; without arguments, list the names.

    A source is the NAME of a published file, a URL, or the ID of a file on Google Drive. An
    interrupted download resumes when repeated. The sha256 is written to FILE.sha256.
    """
    from cuvler.download import PublishedFile, download, published_files
    from cuvler.download import unpack as unpack_archive

    if not sources:
        for name, file in published_files().items():
            click.echo(f"{name}\n    {file.what}\n    {file.url}\n    {_known_sha256(file)}")
        return
    if len(sources) > 1 and (output or sha256):
        raise click.UsageError("--output and --sha256 are for a single source")
    for source in sources:
        file = published_files().get(source) or PublishedFile(_name(source, output), source, "")
        path = output or folder / file.file
        digest = download(file.url, path, sha256=sha256 or file.sha256)
        logger.info("%s: sha256 %s", path, digest)
        if unpack and (file.unpack or source == file.url):
            place = unpack / (file.unpack or "")
            count = unpack_archive(path, place, strip=file.strip)
            logger.info("%s: %d files from %s", place, count, path.name)


def _known_sha256(file: "PublishedFile") -> str:
    return f"sha256 {file.sha256}" if file.sha256 else "sha256 not published"


def _name(source: str, output: Path | None) -> str:
    """Return the file name of a URL."""
    from cuvler.download import published_files

    parts = urlsplit(source)
    name = unquote(parts.path).rpartition("/")[2] if parts.scheme in ("http", "https") else ""
    if output:
        return output.name
    if name in ("", ".", "..") or parts.netloc == "drive.google.com":
        if parts.scheme not in ("http", "https", "gdrive"):
            close = difflib.get_close_matches(source, published_files(), n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(
                f"{source}: neither a known name, http(s)://... nor gdrive:ID; {hint}"
                "`cuvler download` lists the names"
            )
        raise ConfigError(f"{source}: the URL has no file name; give --output")
    return name
