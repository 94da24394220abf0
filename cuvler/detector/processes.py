"""Run training in several processes, on one machine or on several with torchrun or SLURM."""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from detectron2.engine import launch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from cuvler.devices import count_gpus, use_gpu
from cuvler.errors import ConfigError, CuvlerError
from cuvler.slurm import node_address

logger = logging.getLogger(__name__)

# How long a process waits for the others: longer than the first one needs to read annotations or
# to score. A process that hangs, or a machine that is gone, ends the training after this time.
TIMEOUT = timedelta(minutes=30)

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Place:
    """Rank, world size and rendezvous of this command among those started to train together.

    Attributes:
        size: number of commands started.
        rank: rank of this command, from 0.
        url: rendezvous (torch's ``init_method``); empty for a single command.
        local_rank: rank on this machine, if torchrun started one command per process.
        local_size: number of commands torchrun started on this machine; 0 without torchrun, when
            each command has a machine, or a part of one, to itself.
    """

    size: int = 1
    rank: int = 0
    url: str = ""
    local_rank: int = 0
    local_size: int = 0

    def default_gpus(self) -> int:
        """Return the default number of GPUs per machine: one if there is one."""
        return min(count_gpus(), max(self.local_size, 1))

    def machines(self, num_gpus: int) -> int:
        """Return the number of machines, each with ``num_gpus`` GPUs or one process on the CPU.

        Raises:
            ConfigError: torchrun started a different number of processes on each machine.
        """
        if not (self.local_size and num_gpus):
            return self.size
        if num_gpus != self.local_size:
            raise ConfigError(
                f"torchrun started {self.local_size} processes on this machine, one per GPU, but "
                f"num_gpus is {num_gpus}; omit it, or start torchrun with "
                f"--nproc-per-node {num_gpus}",
                parameter="num_gpus",
            )
        return self.size // self.local_size


def find_place(
    environment: Mapping[str, str], address: Callable[[str], str] = node_address
) -> Place:
    """Read the place of this command from the environment set by torchrun or SLURM's srun.

    A job script outside of srun runs once, on its own. With ``srun --ntasks-per-node 1`` each task
    is one machine and starts one process per GPU. The tasks meet on the step's first node, or
    ``MASTER_ADDR``, at ``MASTER_PORT`` or a port derived from the job id.

    Args:
        environment: the environment variables.
        address: gives a node's address by its name.
    """
    if all(name in environment for name in _TORCHRUN):
        rank, size, local_rank, local_size = (int(environment[name]) for name in _TORCHRUN)
        return Place(size, rank, "env://", local_rank, local_size)
    size = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if size == 1:
        return Place()
    host = environment.get("MASTER_ADDR") or address(
        _first_host(environment["SLURM_STEP_NODELIST"])
    )
    # Below the ports from 32768 on, which Linux gives to outgoing connections.
    port = environment.get("MASTER_PORT") or 20000 + int(environment["SLURM_JOB_ID"]) % 10000
    return Place(size, int(environment["SLURM_PROCID"]), f"tcp://{host}:{port}")


def _first_host(nodes: str) -> str:
    """Return the first node of SLURM's node list: gpu03 for gpu[03-05,11],cpu1."""
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", nodes).partition(",")[0]


def run_processes(
    function: Callable[..., None], num_gpus: int, place: Place, args: tuple[Any, ...]
) -> None:
    """Call ``function(*args)`` in every process, with torch.distributed initialized.

    Depending on ``place``, that is this process alone, one new process per GPU, or this process as
    one of those started by torchrun or srun.

    Args:
        function: what to run.
        num_gpus: GPUs of this machine; 0 is one process on the CPU.
        place: of this command.
        args: the other arguments.

    Raises:
        CuvlerError: raised by the function, or a started process failed; its message is in the
            log. Or the connection to another process is lost, or it did not answer for
            :data:`TIMEOUT`.
    """
    if place.local_size or (place.size > 1 and not num_gpus):
        with _lost_processes_as_errors(), _process_group(place, gpu=num_gpus > 0):
            function(*args)
        return
    alone = place.size * num_gpus <= 1
    with _failures_as_errors():
        launch(
            function if alone else _report_errors,
            max(num_gpus, 1),
            num_machines=place.size,
            machine_rank=place.rank,
            dist_url=place.url or "auto",
            args=args if alone else (function, *args),
            timeout=TIMEOUT,
        )


def start_processes(function: Callable[..., None], count: int, args: tuple[Any, ...]) -> None:
    """Call ``function(index, *args)`` in ``count`` independent processes.

    Raises:
        CuvlerError: a process failed; its message is in the log.
    """
    with _failures_as_errors():
        spawn(_call_one_and_report, args=(function, *args), nprocs=count)  # type: ignore[no-untyped-call]


@contextmanager
def _failures_as_errors() -> Iterator[None]:
    try:
        yield
    except ProcessExitedException as error:
        raise CuvlerError(f"{error}; its message is above") from error
    except ProcessRaisedException as error:
        # detectron2's processes meet before they call the function.
        if "torch.distributed.Dist" not in str(error):
            raise
        raise _lost_process(str(error).strip().splitlines()[-1]) from error


@contextmanager
def _lost_processes_as_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # torch has no class for errors of gloo; those of NCCL and of the rendezvous have one.
        if not isinstance(error, distributed.DistError) and "/gloo/" not in str(error):
            raise
        raise _lost_process(str(error).partition("\n")[0]) from error


def _lost_process(message: str) -> CuvlerError:
    """Return the error of a process that lost another one, by the first line of torch's message."""
    # Without the place in gloo's source, or the error's class, and advice.
    reason = re.sub(r"^(\[\S+\]|[\w.]+Error:) ", "", message).partition(". ")[0]
    return CuvlerError(
        "another process of this training failed, does not answer, or its machine is lost "
        f"({reason}); its own message, if it had one, is in this log. The same command resumes "
        "from the last checkpoint"
    )


def _call_one_and_report(index: int, function: Callable[..., None], *args: Any) -> None:
    _report_errors(function, index, *args)


def _report_errors(function: Callable[..., None], *args: Any) -> None:
    """Log a :class:`CuvlerError` and exit with status 1, instead of a traceback."""
    try:
        with _lost_processes_as_errors():
            function(*args)
    except CuvlerError as error:
        logger.error("%s", error)
        sys.exit(1)


@contextmanager
def _process_group(place: Place, *, gpu: bool) -> Iterator[None]:
    """Initialize torch.distributed in a process that torchrun or srun started.

    detectron2's ``launch`` does this only in the processes that it starts itself.
    """
    if gpu:
        use_gpu(place.local_rank)
    distributed.init_process_group(
        "nccl" if gpu else "gloo", place.url, TIMEOUT, world_size=place.size, rank=place.rank
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
