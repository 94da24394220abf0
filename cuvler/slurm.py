"""SLURM: jobs on several nodes, and jobs that it will never start, with its reason and advice."""

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from cuvler.files import StrPath

# SLURM's reasons of waiting jobs and sbatch's errors, and what to do. Other reasons pass: a job
# waits for its turn, for free nodes or for a quota.
_ADVICE = (
    (
        r"PartitionTimeLimit|MaxWall|WallDuration|time limit is invalid",
        "it asks for more time than its partition or QOS allows (`sinfo --format '%P %l'`): set"
        " max_runtime in the profile to that limit, in minutes",
    ),
    (
        r"BadConstraints|PartitionNodeLimit|M(?:ax|in)\w*Per(?:Job|Node)"
        r"|node configuration is not available|can ?not be satisfied|More processors requested",
        "it asks for more memory, cores or GPUs than a node has or its QOS allows (`sinfo --Node"
        " --format '%P %m %c %G'`): set max_mem_mb, cpus_per_task and gres in the profile",
    ),
    (
        r"Invalid ?(?:Account|QOS|account|qos|partition)|invalid partition|NotAllowed"
        r"|not permitted"
        r"|accounting/QOS policy",
        "set slurm_partition, slurm_account and qos in the profile to those that you may use"
        " (`sacctmgr show associations user=$USER`)",
    ),
    (
        r"JobHeld|JobHoldMaxRequeue|requeued[ _]held",
        "it is held: find out why, then `scontrol release` and its number",
    ),
    (
        r"ReqNodeNotAvail|Nodes[ _]required[ _]for[ _]job|PartitionDown|PartitionInactive",
        "it waits for nodes that are down, drained or reserved (`sinfo --list-reasons`)",
    ),
    (r"DependencyNeverSatisfied", "cancel it with `scancel` and its number"),
)
_FIELDS = "%i|%r|%Z|%k"  # number, reason, working directory, comment
_COMMENT = re.compile(r"(?:rule|group)_(.+?)(?:_wildcards_(.*))?")
_REFUSED = re.compile(r"sbatch: error: (?:Batch job submission failed: )?(.+?)'?\.?$", re.M)
_PERIOD = 60.0  # seconds between two looks at the queue


def several_nodes(nodes: int) -> dict[str, int | str]:
    """Return the resources of a rule that runs its command once on each of several nodes.

    Snakemake's plugin runs other jobs in a job step of one task, on one node. With ``mpi`` it asks
    for the nodes and runs the rule's shell on the first one, outside of a step; the shell puts the
    resource ``mpi`` before its command. That starts a step of one task per node, with all cores,
    memory and GPUs that the job has there. If a task fails or its node is lost, all end.

    Args:
        nodes: number of nodes; with 1 the job is like others, without such resources.
    """
    if nodes == 1:
        return {}
    step = f"srun --nodes={nodes} --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1"
    # tasks_per_gpu: without it the plugin asks for `tasks` tasks per GPU.
    return {"nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0, "mpi": step}


def node_address(node: str) -> str:
    """Return the name of a node, or its address for SLURM where names of nodes are no hosts."""
    scontrol = shutil.which("scontrol")
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        if scontrol:
            words = [scontrol, "show", "node", "--oneliner", node]
            result = subprocess.run(  # noqa: S603
                words, capture_output=True, text=True, timeout=60, check=False
            )
            if found := re.search(r"\bNodeAddr=(\S+)", result.stdout):
                return found[1]
    return node


@dataclass(frozen=True)
class StuckJob:
    """A job in the queue that cannot start.

    Attributes:
        number: SLURM's id of it.
        name: its rule and wildcards.
        reason: SLURM's reason.
        advice: what the reason means and what to change.
    """

    number: str
    name: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name} (SLURM job {self.number}): {self.reason}: {self.advice}"


def stuck_jobs(folder: Path, timeout: float = 3.0) -> list[StuckJob] | None:
    """Return the jobs of Snakemake in a folder that cannot start, in SLURM's order.

    Empty where SLURM is not installed; ``None`` if it does not answer within ``timeout`` seconds.
    """
    squeue = shutil.which("squeue")
    if squeue is None:
        return []
    words = [squeue, "--me", "--noheader", "--states=PENDING", f"--format={_FIELDS}"]
    try:
        result = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, timeout=timeout, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return list(_read_queue(result.stdout, folder))


def _read_queue(output: str, folder: Path) -> Iterator[StuckJob]:
    for line in output.splitlines():
        number, reason, job_folder, comment = line.split("|", maxsplit=3)
        named = _COMMENT.fullmatch(comment)
        advice = advice_on(reason)
        if named and advice and os.path.realpath(job_folder) == os.path.realpath(folder):
            yield StuckJob(number, " ".join(filter(None, named.groups())), reason, advice)


def advice_on(reason: str) -> str | None:
    """Return what to change for a reason or error of SLURM; ``None`` if waiting is normal."""
    return next((advice for pattern, advice in _ADVICE if re.search(pattern, reason)), None)


def refusals(logs: Iterable[StrPath]) -> list[str]:
    """Return the different errors of ``sbatch`` in Snakemake's logs, each with what to change."""
    texts = (Path(log).read_text(encoding="utf-8", errors="replace") for log in logs)
    messages = dict.fromkeys(message for text in texts for message in _REFUSED.findall(text))
    return [f"{message}: {advice}" for message in messages if (advice := advice_on(message))]


def correct_sacct(folder: StrPath, environment: MutableMapping[str, str] = os.environ) -> None:
    """Put the ``sacct`` of a folder, which calls the real one, first on the path, if there is one.

    It reads the path of the real one from ``CUVLER_SACCT``.
    """
    if real := shutil.which("sacct", path=environment.get("PATH")):
        environment["CUVLER_SACCT"] = real
        environment["PATH"] = os.pathsep.join([str(folder), environment["PATH"]])


def watch(folder: Path, warn: Callable[[str], None], period: float = _PERIOD) -> threading.Event:
    """Start a thread that warns of jobs that cannot start, once for each job and reason.

    Args:
        folder: the folder that Snakemake runs in.
        warn: called with a message.
        period: seconds between two looks at SLURM's queue.

    Returns:
        Setting it ends the thread, which otherwise ends with the program.
    """
    stop = threading.Event()
    threading.Thread(target=_watch, args=(folder, warn, period, stop), daemon=True).start()
    return stop


def _watch(folder: Path, warn: Callable[[str], None], period: float, stop: threading.Event) -> None:
    seen = set()
    while not stop.wait(period):
        for job in stuck_jobs(folder, timeout=_PERIOD) or []:
            if (job.number, job.reason) not in seen:
                seen.add((job.number, job.reason))
                warn(f"This job cannot start: {job}")
