"""Steps that can fail without stopping the others: what became of each is a file of its own."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cuvler.download import download, published_files
from cuvler.download.digests import verified_sha256
from cuvler.errors import CuvlerError
from cuvler.files import StrPath, read_json, write_json
from cuvler.reproduction.entries import Entry, entries

DOWNLOADS = Path("resources/downloads")
_SKIPPED = "skipped"


def unknown_files(config: Mapping[str, Any], folder: Path = DOWNLOADS) -> dict[str, str]:
    """Return the entries with a file that is neither here nor has an address, with the reason.

    Args:
        config: the workflow's settings, which may have addresses in ``download``.
        folder: where downloads are.
    """
    known = {*config["download"], *published_files()}
    return {
        entry.name: f"{entry.file}: its address is not known; put the file at "
        f"{folder / entry.file}, or set download.{entry.file} in your config"
        for entry in entries().values()
        if entry.file not in known and not (folder / entry.file).exists()
    }


def fetch(
    entry: Entry, folder: Path, link: Path, *, url: str | None = None, sha256: str | None = None
) -> None:
    """Fetch an entry's file unless it is there, try it, and link to it.

    A detector is built and its weights loaded, on the CPU: a file that is not of this detector is
    found here and not in a job that waited for a GPU.

    Args:
        entry: a published one.
        folder: of downloads.
        link: the symbolic link to write.
        url: where to fetch it from instead of the address that is known.
        sha256: what the digest must be, with ``url``.

    Raises:
        CuvlerError: the file cannot be fetched, or is another one than expected.
    """
    path, known = folder / entry.file, published_files().get(entry.file)
    if url:
        download(url, path, sha256=sha256)
    elif known:
        download(known.url, path, sha256=known.sha256)
    else:
        verified_sha256(path)
    if entry.detector_config:
        from cuvler.detector import load_detector

        load_detector(path, device="cpu", detector_config=entry.detector_config)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(path, link.parent))


def run_step(
    step: Callable[[], None], output: Path, *, after: Path | None = None, attempt: int = 0
) -> str | None:
    """Run a step, unless the one before was skipped; write what became of it.

    Args:
        step: writes ``output``, or raises :class:`~cuvler.errors.CuvlerError`; then, or where
            the step before was skipped, ``{"skipped": reason}`` is written there. The same, and
            the attempt, is written to ``output.outcome`` in the same folder.
        output: what the step makes.
        after: what the step before made.
        attempt: see :func:`next_attempt`.

    Returns:
        Why it was skipped; None if it was not.
    """
    reason = skip_reason(after) if after else None
    if reason is None:
        try:
            step()
        except CuvlerError as error:
            reason = str(error)
    skipped = {} if reason is None else {_SKIPPED: reason}
    if skipped:
        write_json(output, skipped)
    write_json(_outcome(output), {"attempt": attempt, **skipped})
    return reason


def skip_reason(output: Path) -> str | None:
    """Return why the step that made an output was skipped; None if it was not.

    Raises:
        DataError: its outcome is damaged.
    """
    reason = _read(output).get(_SKIPPED)
    return None if reason is None else str(reason)


def next_attempt(output: StrPath) -> int:
    """Return the number of the attempt that a run makes at a step.

    It grows after a failure and stays after a success. As a parameter of the rule it makes
    Snakemake run the step again in the next run if, and only if, it was skipped in the last.
    """
    found = _read(Path(output))
    return int(found.get("attempt", 0)) + (_SKIPPED in found)


def _outcome(output: Path) -> Path:
    return output.with_name(f"{output.name}.outcome")


def _read(output: Path) -> dict[str, Any]:
    path = _outcome(output)
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found
