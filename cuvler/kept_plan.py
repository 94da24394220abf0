"""Snakemake's plan, kept so that asking for the progress of a run again takes no planning.

Snakemake plans ImageNet's 2,260 jobs in some four seconds. The plan itself does not change during a
run; what does is which of the pending files have been made since.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cuvler import __version__
from cuvler.errors import DataError
from cuvler.files import read_json, write_json

Plan = list[tuple[str, Path, bool]]  # rule, output, and whether it is up to date
_STATE = Path(".snakemake")
_PARTS = ("Snakefile", "workflow", "config", "profiles")
_VALID = 3600.0  # seconds; images that users add in the meantime are not noticed


def read_kept(arguments: Sequence[str]) -> Plan | None:
    """Return the plan of the run in the working directory as it is now; None if it may differ.

    It is the kept plan with the pending files that have been made since as up to date. It may
    differ if the plan is older than an hour; if the workflow, its config or the arguments are
    others; or if a file that was up to date has changed or is gone.

    Args:
        arguments: Snakemake's.
    """
    path = _path(arguments)
    if not path.exists():
        return None
    with suppress(DataError, KeyError, TypeError, ValueError):  # of another version, or damaged
        kept = read_json(path)
        if not 0 <= time.time() - kept["time"] <= _VALID or kept["state"] != _state(arguments):
            return None
        plan = []
        for rule, name, done, before in kept["files"]:
            made = _time_of(name)
            if done and made != before:
                return None
            plan.append((str(rule), Path(name), made is not None and (done or made != before)))
        return plan
    return None


def keep(arguments: Sequence[str], plan: Plan) -> None:
    """Keep a plan that Snakemake has just made."""
    files = [(rule, os.fspath(path), done, _time_of(path)) for rule, path, done in plan]
    content = {"time": time.time(), "state": _state(arguments), "files": files}
    # Where nothing can be written, or Snakemake has never run, the next call plans again.
    if _STATE.is_dir():
        with suppress(DataError):
            write_json(_path(arguments), content)


def _path(arguments: Sequence[str]) -> Path:
    words = json.dumps([*arguments, os.environ.get("SNAKEMAKE_PROFILE")])
    return _STATE / "cuvler_plans" / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"


def _state(arguments: Sequence[str]) -> str:
    """Return a digest that changes with the files that the plan is made from."""
    digest = hashlib.sha256(__version__.encode())
    for path in _sources(arguments):
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _sources(arguments: Sequence[str]) -> Iterator[Path]:
    for part in (*_PARTS, *arguments):
        path = Path(part)
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())


def _time_of(path: str | Path) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns
    except FileNotFoundError:
        return None
