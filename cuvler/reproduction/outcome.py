"""Steps that may fail without stopping the others; each writes its outcome to a file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuvler.config import Settings
from cuvler.download import download, published_files
from cuvler.download.digests import verified_sha256
from cuvler.errors import CuvlerError
from cuvler.files import StrPath, read_json, write_json
from cuvler.layout import DOWNLOADS
from cuvler.reproduction.entries import Entry, entries

_SKIPPED = "skipped"


def unknown_files(settings: Settings, folder: Path = DOWNLOADS) -> dict[str, str]:
    """Return the entries with a missing file of unknown URL, each with the reason.

    Args:
        settings: the workflow's settings, which may have URLs in ``download``.
        folder: folder of the downloads.
    """
    known = {*settings.download, *published_files()}
    return {
        entry.name: f"{entry.file}: unknown URL; put the file at "
        f"{folder / entry.file}, or set download.{entry.file} in your config"
        for entry in entries().values()
        if entry.file not in known and not (folder / entry.file).exists()
    }


def fetch(
    entry: Entry, folder: Path, link: Path, *, url: str | None = None, sha256: str | None = None
) -> None:
    """Download an entry's file if it is missing, check it, and link to it.

    Detectors are loaded on the CPU, so that a wrong file fails here and not in a job that had to
    wait for a GPU.

    Args:
        entry: a published detector or set of pseudo-masks.
        folder: folder of the downloads.
        link: the symbolic link to write.
        url: replaces the known URL.
        sha256: expected SHA-256 of the file at ``url``.

    Raises:
        CuvlerError: the file cannot be downloaded, or is not the expected one.
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
    """Run a step, unless the previous one was skipped, and write the outcome.

    Args:
        step: writes ``output``, or raises :class:`~cuvler.errors.CuvlerError`. If it raises or
            the previous step was skipped, ``{"skipped": reason}`` is written to ``output``. The
            reason and the attempt are also written to ``{output}.outcome``.
        output: the output of the step.
        after: the output of the previous step.
        attempt: see :func:`next_attempt`.

    Returns:
        The reason for skipping; None if the step succeeded.
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
    """Return why the step of an output was skipped; None if it was not.

    Raises:
        DataError: the file of its outcome is damaged.
    """
    reason = _read(output).get(_SKIPPED)
    return None if reason is None else str(reason)


def next_attempt(output: StrPath) -> int:
    """Return the number of a step's next attempt, which increases only after failures.

    As a parameter of the rule it makes Snakemake repeat a step if, and only if, it was skipped in
    the previous run.
    """
    found = _read(Path(output))
    return int(found.get("attempt", 0)) + (_SKIPPED in found)


def _outcome(output: Path) -> Path:
    return output.with_name(f"{output.name}.outcome")


def _read(output: Path) -> dict[str, Any]:
    path = _outcome(output)
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found
