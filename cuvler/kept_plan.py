"""Snakemake's plan, kept so that asking for the progress of a run again takes no planning.

Snakemake plans ImageNet's 2,260 jobs in some four seconds. The plan itself does not change during a
run; what does is which of the pending files have been made since.
"""

import hashlib
import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cuvler import __version__
from cuvler.errors import DataError
from cuvler.files import read_json, write_json
from cuvler.layout import LISTING
from cuvler.listing import listed_state
from cuvler.status import Planned, read_plan, read_summary

Plan = list[tuple[str, Path, bool]]  # rule, output, and whether it is up to date
_STATE = Path(".snakemake")
_PARTS = ("Snakefile", "workflow", "config", "profiles")
_VALID = 3600.0  # seconds
_ABSENT = "-"  # in Snakemake's summary


def read_kept(arguments: Sequence[str]) -> Plan | None:
    """Return the plan of the run in the working directory as it is now; None if it may differ.

    It is the kept plan with the pending files that have been made since as up to date. It may
    differ if the plan is older than an hour; if the workflow, its config or the arguments are
    others; if a file that was up to date has changed or is gone; if a user's file or folder of
    images has changed that had been used; if a dataset has been listed since; or if all pending
    files have been made.

    Args:
        arguments: Snakemake's.
    """
    path = _path(arguments)
    if not path.exists():
        return None
    with suppress(DataError, KeyError, TypeError, ValueError):  # of another version, or damaged
        kept = read_json(path)
        if not 0 <= time.time() - kept["time"] <= _VALID:
            return None
        if kept["state"] != sources_state(arguments):
            return None
        if any(_date(name) != date for name, date in kept["inputs"].items()):
            return None
        if any(listed_state(listing, root) != state for listing, root, state in kept["images"]):
            return None
        plan = []
        for rule, name, done, before in kept["files"]:
            date = _date(name)
            if date != before and (done or rule == LISTING.rule):
                return None
            plan.append((str(rule), Path(name), date != _ABSENT and (done or date != before)))
        # What files of a kept plan were made from is known of those that existed; the last word,
        # that all is done, is Snakemake's.
        was_done = all(done for _, _, done, _ in kept["files"])
        return plan if was_done or not all(done for _, _, done in plan) else None
    return None


def keep(arguments: Sequence[str], summary: str, state: str) -> None:
    """Keep a plan that Snakemake has just made.

    Args:
        arguments: Snakemake's.
        summary: its detailed summary.
        state: :func:`sources_state` before it planned.
    """
    # Where nothing can be written, or Snakemake has never run, the next call plans again. So it
    # does where a listing is damaged.
    if not _STATE.is_dir():
        return
    rows = read_summary(summary)
    # Snakemake's dates: a pending file may have been made while it planned.
    dates = {row.output: row.date for row in rows}
    plan = read_plan(summary)
    with suppress(DataError):
        images = [(name, root, listed_state(name, root)) for name, root in _image_roots(rows)]
        content = {
            "time": time.time(),
            "state": state,
            "files": [(rule, os.fspath(path), done, dates[str(path)]) for rule, path, done in plan],
            "inputs": {name: _date(name) for name in _inputs(rows)},
            "images": images,
        }
        write_json(_path(arguments), content)


def _inputs(rows: Iterable[Planned]) -> set[str]:
    """Return the files of users that planned files were made from last."""
    used = {name for row in rows for name in row.inputs.split(",")}
    return used - {row.output for row in rows} - {_ABSENT, ""}


def _image_roots(rows: Iterable[Planned]) -> Iterator[tuple[str, str]]:
    """Return each listing that was made and its folder of images, which is no input of its rule."""
    for row in rows:
        if row.rule == LISTING.rule and row.command != _ABSENT:
            words = shlex.split(row.command)
            yield row.output, words[words.index("--image-root") + 1]


def _path(arguments: Sequence[str]) -> Path:
    words = json.dumps([*arguments, os.environ.get("SNAKEMAKE_PROFILE")])
    return _STATE / "cuvler_plans" / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"


def sources_state(arguments: Sequence[str]) -> str:
    """Return a digest that changes with the files that say what is planned."""
    digest = hashlib.sha256(__version__.encode())
    for path in _sources(arguments):
        with suppress(FileNotFoundError):  # an editor's temporary file
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _sources(arguments: Sequence[str]) -> Iterator[Path]:
    values = [word.partition("=")[2] for word in arguments if word.startswith("--")]
    for part in (*_PARTS, *arguments, *filter(None, values)):
        path = Path(part)
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())


def _date(path: str) -> str:
    """Return a file's modification time as in Snakemake's summary."""
    try:
        return time.ctime(Path(path).stat().st_mtime)
    except FileNotFoundError:
        return _ABSENT
