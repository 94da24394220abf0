"""Progress of a run, from Snakemake's plan and the existing files. Nothing is locked."""

import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from cuvler.image_status import USABLE, ImageStatus
from cuvler.layout import FILES, LISTING, file_of

State = Literal["done", "running", "failed", "quiet", "waiting"]

# Seconds without a log line after which a job counts as quiet: it was killed, or works without
# logging. Stages log once a minute.
_QUIET = 15 * 60
_TAIL = 8192  # bytes read from the end of a log
_PROGRESS = re.compile(r"(\d+) of (\d+) \w+, ([\d.e+-]+) a second")
_FAILURES = "|".join(status for status in ImageStatus if status not in USABLE)
_LEFT_OUT = re.compile(rf"(\d+) (?:{_FAILURES}|images left out)\b")
_ERROR = re.compile(r"^(?:Error: .*|(?:\w+\.)*\w*(?:Error|Exception|Interrupt)(?:: .*)?)$", re.M)
# As logged by detectron2: a str(timedelta).
_ETA = re.compile(r"eta: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")


@dataclass(frozen=True)
class Job:
    """One planned job.

    Attributes:
        rule: its name.
        output: the file it writes.
        state: ``quiet`` jobs have started but not logged anything for a while.
        log: its log; it need not exist.
        images: number of images to process; ``None`` if its progress is not counted in images.
        images_done: number of images processed.
        left_out: number of images that could not be used.
        seconds: run time; ``None`` unless done and measured.
        rate: logged images per second; ``None`` unless running.
        eta: logged remaining seconds; ``None`` unless running.
        error: the last error in the log of a failed job.
    """

    rule: str
    output: Path
    state: State
    log: Path
    images: int | None = None
    images_done: int = 0
    left_out: int = 0
    seconds: float | None = None
    rate: float | None = None
    eta: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Stage:
    """The jobs of one rule, or those that share a folder of shards.

    Attributes:
        rule: the rule.
        name: the folder of shards, dataset/method or dataset/method/backbone; otherwise empty.
        jobs: in the order of the plan.
    """

    rule: str
    name: str
    jobs: list[Job] = field(default_factory=list)

    def count(self, state: State) -> int:
        """Return the number of jobs in a state."""
        return sum(job.state == state for job in self.jobs)

    @property
    def done(self) -> bool:
        """Whether all jobs are done."""
        return self.count("done") == len(self.jobs)

    @cached_property
    def images(self) -> tuple[int, int, int] | None:
        """Numbers of images done, in total and left out; ``None`` if unknown."""
        sizes = [job.images for job in self.jobs if job.images is not None]
        if len(sizes) < len(self.jobs):
            return None
        done = sum(job.images_done for job in self.jobs)
        return done, sum(sizes), sum(job.left_out for job in self.jobs)

    @property
    def longest_eta(self) -> float | None:
        """Largest remaining time logged by a running job, in seconds."""
        return max((job.eta for job in self.jobs if job.eta is not None), default=None)

    def eta(self, others: Iterable[Job] = ()) -> float | None:
        """Estimate the seconds until the last job is done, with as many jobs running as now.

        Estimated from finished jobs, else from running ones, else from ``others``, jobs of the
        same rule; ``None`` if there is no estimate.
        """
        if self.done:
            return 0.0
        waiting = [job for job in self.jobs if job.state != "done" and job.eta is None]
        concurrent = max(1, self.count("running"))
        rate = _rate(self.jobs) or _rate(others)
        if self.images is not None and rate:
            return (self.images[1] - self.images[0]) / (rate * concurrent)
        times = [job.seconds for job in (*self.jobs, *others) if job.seconds is not None]
        if waiting and not times:
            return None
        rest = len(waiting) * statistics.fmean(times) / concurrent if waiting else 0.0
        return (self.longest_eta or 0.0) + rest


def _rate(jobs: Iterable[Job]) -> float | None:
    """Return the images per second of one job, or ``None`` if unknown."""
    jobs = list(jobs)
    done = [(j.images, j.seconds) for j in jobs if j.images and j.seconds]
    if done:
        return sum(images for images, _ in done) / sum(seconds for _, seconds in done)
    logged = [job.rate for job in jobs if job.rate]
    return statistics.fmean(logged) if logged else None


class Planned(NamedTuple):
    """A row of ``snakemake --detailed-summary``.

    Attributes:
        output: the planned file.
        date: its modification time at the time of planning, as :func:`time.ctime` gives it, or
            ``-`` if it did not exist.
        rule: the rule that makes it.
        inputs: what it was made from, separated by commas, or ``-``.
        command: what it was made with, or ``-``.
        done: whether it is up to date.
    """

    output: str
    date: str
    rule: str
    inputs: str
    command: str
    done: bool


def read_summary(summary: str) -> list[Planned]:
    """Parse the output of ``snakemake --detailed-summary``: a row for each planned file."""
    rows = []
    for line in summary.rstrip("\n").split("\n")[1:]:
        output, date, rule, _, inputs, rest = line.split("\t", 5)
        command, *state = rest.rsplit("\t", 2)  # which may have tabs in quotes
        rows.append(Planned(output, date, rule, inputs, command, state == ["ok", "no update"]))
    return rows


def read_plan(summary: str) -> list[tuple[str, Path, bool]]:
    """Parse the output of ``snakemake --detailed-summary``.

    Returns:
        Rule, output and whether it is up to date, for each planned file in pipeline order.
    """
    planned = [(row.rule, Path(row.output), row.done) for row in read_summary(summary)]
    order = {rule: place for place, rule in enumerate(FILES)}
    return sorted(planned, key=lambda item: (order.get(item[0], len(order)), _natural(item[1])))


def _natural(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))
    ]


def stages(plan: Iterable[tuple[str, Path, bool]], now: float | None = None) -> list[Stage]:
    """Return the stages of a run with the state of every planned job.

    Args:
        plan: as returned by :func:`read_plan`.
        now: the current time in seconds since the epoch.

    Raises:
        DataError: a listing is damaged.
    """
    plan = list(plan)
    now = time.time() if now is None else now
    # Every target needs a listing.
    listings = {
        LISTING.names(output)["dataset"]: output for rule, output, _ in plan if rule == LISTING.rule
    }
    if not listings:
        return []
    results = LISTING.root_of(next(iter(listings.values())))
    sizes = {dataset: _shard_sizes(path) for dataset, path in listings.items()}
    # A job that writes several files has one log.
    jobs: dict[tuple[str, Path], list[tuple[Path, bool]]] = {}
    for rule, output, done in plan:
        log = file_of(rule, output).log_of(output, results)
        jobs.setdefault((rule, log), []).append((output, done))
    found: dict[tuple[str, str], Stage] = {}
    for (rule, log), outputs in jobs.items():
        output, done = outputs[0][0], all(done for _, done in outputs)
        file = file_of(rule, output)
        names = file.names(output)
        images = _images(rule, names, sizes)
        if done:
            job = _done(rule, output, log, images, file.benchmark_of(output, results))
        else:
            job = _open(rule, output, log, images, now)
        name = "/".join(value for wildcard, value in names.items() if wildcard != "shard")
        stage = (rule, name if "shard" in names else "")
        found.setdefault(stage, Stage(*stage)).jobs.append(job)
    return list(found.values())


def _shard_sizes(listing: Path) -> dict[int, int]:
    from cuvler.listing import read_listing

    if not listing.exists():
        return {}
    return dict(Counter(read_listing(listing)["shard"].tolist()))


def _done(rule: str, output: Path, log: Path, images: int | None, benchmark: Path) -> Job:
    left_out = sum(map(int, _LEFT_OUT.findall(_tail(log))))
    return Job(rule, output, "done", log, images, images or 0, left_out, _seconds(benchmark))


def _open(rule: str, output: Path, log: Path, images: int | None, now: float) -> Job:
    # Outputs are deleted when a job starts: while the output exists, the job has not started again
    # and the log is of its previous run.
    if output.exists() or not log.exists():
        return Job(rule, output, "waiting", log, images)
    text = _tail(log)
    if errors := _ERROR.findall(text):
        return Job(rule, output, "failed", log, images, error=errors[-1])
    if now - log.stat().st_mtime > _QUIET:
        return Job(rule, output, "quiet", log, images)
    logged = _PROGRESS.findall(text)
    count, rate = (int(logged[-1][0]), float(logged[-1][2])) if logged else (0, None)
    eta = [
        86400 * int(days or 0) + 3600 * int(hours) + 60 * int(minutes) + int(seconds)
        for days, hours, minutes, seconds in _ETA.findall(text)
    ]
    count = min(count, images or 0)
    return Job(rule, output, "running", log, images, count, rate=rate, eta=eta[-1] if eta else None)


def _images(
    rule: str, names: Mapping[str, str], sizes: Mapping[str, Mapping[int, int]]
) -> int | None:
    shards = sizes.get(names.get("dataset", ""), {})
    if "shard" in names:
        return shards.get(int(names["shard"]))
    if rule == "images" or rule.endswith("predictions"):
        return sum(shards.values()) or None
    return None


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL))
            return stream.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _seconds(benchmark: Path) -> float | None:
    """Return the run time of a job, or ``None`` if its benchmark is missing or incomplete."""
    try:
        return float(benchmark.read_text(encoding="utf-8").splitlines()[-1].split("\t")[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
