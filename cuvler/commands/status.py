"""``cuvler status``: show the progress of a run."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from cuvler.errors import ConfigError
from cuvler.extras import require_extra
from cuvler.kept_plan import Plan, keep, read_kept, sources_state
from cuvler.logs import printable
from cuvler.progress import duration
from cuvler.slurm import stuck_jobs
from cuvler.status import Job, Stage, read_plan, stages

_CHATTER = ("Using workflow", "Config file", "Building DAG", "Assuming unrestricted")


@click.command("status", context_settings={"ignore_unknown_options": True})
@click.argument("snakemake_arguments", nargs=-1, type=click.UNPROCESSED)
def command(snakemake_arguments: tuple[str, ...]) -> None:
    """Show the progress of a run, stage by stage, and its estimated end.

    SNAKEMAKE_ARGUMENTS are those of the run: targets, --configfile, --config, --profile. Only
    files are read, so it can be used at any time, also during a run on a cluster; Snakemake's plan
    is kept for an hour, unless the config, the images, or finished files change. Where SLURM is
    installed, its queue is asked too: jobs that cannot start are named with its reason. The exit
    status is 1 if jobs have failed.
    """
    shown = stages(_plan(snakemake_arguments))
    etas = [stage.eta(_same_rule(stage, shown)) for stage in shown]
    rows = [_row(stage, eta) for stage, eta in zip(shown, etas, strict=True)]
    click.echo(_table([("stage", "done", "images", "left out", "now", "left"), *rows]))
    for stage in shown:
        for job in stage.jobs:
            if job.state == "failed":
                click.echo(f"failed: {job.log}: {printable(job.error)}")
            elif job.state == "quiet":
                silent = duration(time.time() - job.log.stat().st_mtime)
                click.echo(f"quiet:  {job.log}: no output for {silent}; stopped, or busy")
    stuck = stuck_jobs(Path())
    if stuck is None:
        click.echo("SLURM's queue: no answer; jobs that cannot start are not shown")
    for stuck_job in stuck or []:
        click.echo(printable(f"cannot start: {stuck_job}"))
    click.echo(_forecast(shown, etas))
    if any(stage.count("failed") for stage in shown):
        sys.exit(1)


def _plan(arguments: Sequence[str]) -> Plan:
    """Return the kept plan, or one that Snakemake makes."""
    plan = read_kept(arguments)
    if plan is None:
        state = sources_state(arguments)  # before planning: they may change meanwhile
        text = summary(arguments)
        keep(arguments, text, state)
        plan = read_plan(text)
    return plan


def summary(arguments: Sequence[str]) -> str:
    """Return Snakemake's summary of its plan, for :func:`cuvler.status.read_plan`.

    Raises:
        ConfigError: Snakemake fails.
    """
    require_extra("workflow")
    words = [sys.executable, "-m", "snakemake", *arguments, "--detailed-summary"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode or not result.stdout:
        reason = _reason(result.stderr)
        if "No Snakefile found" in reason:
            reason += (
                f"\n{Path.cwd()} has no workflow; run this in the folder that contains workflow/"
            )
        raise ConfigError(f"Snakemake cannot plan this run:\n{reason}")
    return result.stdout


def _reason(stderr: str) -> str:
    """Return Snakemake's error message, without traceback and progress messages."""
    lines = stderr.strip().splitlines()
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1]
    return "\n".join(line for line in lines if not line.startswith(_CHATTER))[-2000:]


def _same_rule(stage: Stage, shown: list[Stage]) -> list[Job]:
    return [job for other in shown if other.rule == stage.rule for job in other.jobs]


def _row(stage: Stage, eta: float | None) -> tuple[str, ...]:
    images, left_out = "", ""
    if stage.images is not None:
        done, total, lost = stage.images
        images, left_out = f"{done:,}/{total:,}", f"{lost:,}" if lost else ""
    states = [f"{stage.count(s)} {s}" for s in ("running", "failed", "quiet") if stage.count(s)]
    progress = f"{stage.count('done')}/{len(stage.jobs)}"
    left = "" if stage.done else "?" if eta is None else duration(eta)
    if eta is None and stage.longest_eta is not None:
        left = f"over {duration(stage.longest_eta)}"
    return f"{stage.rule} {stage.name}".strip(), progress, images, left_out, ", ".join(states), left


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _forecast(shown: list[Stage], etas: list[float | None]) -> str:
    if all(stage.done for stage in shown):
        return "All is done."
    unknown = [
        stage.rule for stage, eta in zip(shown, etas, strict=True) if eta is None and not stage.done
    ]
    names = ", ".join(dict.fromkeys(unknown))
    left = sum(eta for eta in etas if eta is not None)
    if not left:
        return f"No estimate yet of {names}."
    at = time.strftime("%a %H:%M", time.localtime(time.time() + left))
    known = f"About {duration(left)} left, until {at}"
    return f"{known}, not counting {names}, which has no estimate yet." if unknown else f"{known}."
