"""Several processes: on one machine, or on several by torchrun or SLURM."""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from cuvler.errors import ConfigError, CuvlerError

logger = logging.getLogger(__name__)

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Place:
    """This command's place among those that were started to train together.

    Attributes:
        size: how many were started.
        rank: of this one, from 0.
        url: where they meet (torch's ``init_method``); empty for one alone.
        local_rank: of this one on its machine, where torchrun started one command a process.
        local_size: how many torchrun started on this machine; 0 where it was not torchrun, and
            every command has a machine, or a part of one, to itself.
    """

    size: int = 1
    rank: int = 0
    url: str = ""
    local_rank: int = 0
    local_size: int = 0

    def default_gpus(self) -> int:
        """Give the GPUs of a machine to train on where nobody says: one if there is one."""
        return min(torch.cuda.device_count(), max(self.local_size, 1))

    def machines(self, num_gpus: int) -> int:
        """Give the number of machines with ``num_gpus`` GPUs, or one process on the CPU, each.

        Raises:
            ConfigError: torchrun started another number of processes on each machine.
        """
        if not (self.local_size and num_gpus):
            return self.size
        if num_gpus != self.local_size:
            raise ConfigError(
                f"torchrun started {self.local_size} processes on this machine, one a GPU, but "
                f"--num-gpus is {num_gpus}; leave it out, or start torchrun with "
                f"--nproc-per-node {num_gpus}"
            )
        return self.size // self.local_size


def find_place(environment: Mapping[str, str]) -> Place:
    """Read the place of this command from the environment of torchrun or of SLURM's srun.

    A job script outside of srun runs once, whatever its job has: it is alone. With
    ``srun --ntasks-per-node 1`` every task is a machine and starts a process for each of its GPUs.
    The tasks meet on the step's first node at ``MASTER_PORT``, or a port made of the job's id.
    """
    if all(name in environment for name in _TORCHRUN):
        rank, size, local_rank, local_size = (int(environment[name]) for name in _TORCHRUN)
        return Place(size, rank, "env://", local_rank, local_size)
    size = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if size == 1:
        return Place()
    host = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
    port = environment.get("MASTER_PORT") or 20000 + int(environment["SLURM_JOB_ID"]) % 20000
    return Place(size, int(environment["SLURM_PROCID"]), f"tcp://{host}:{port}")


def _first_host(nodes: str) -> str:
    """Give the first of SLURM's list of nodes: gpu03 of gpu[03-05,11],cpu1."""
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", nodes).partition(",")[0]


def run_processes(
    function: Callable[..., None], num_gpus: int, place: Place, args: tuple[Any, ...]
) -> None:
    """Call ``function(*args)`` in every process, within detectron2's process groups.

    That is this process alone, one started for each GPU, or one of torchrun's.

    Raises:
        CuvlerError: what the function raises, or that a process which was started failed; it has
            said why in the log.
    """
    if place.local_size or (place.size > 1 and not num_gpus):
        with _joined(place, gpu=num_gpus > 0):
            function(*args)
        return
    alone = place.size * num_gpus <= 1
    with _failures_are_told():
        launch(
            function if alone else _report_errors,
            max(num_gpus, 1),
            num_machines=place.size,
            machine_rank=place.rank,
            dist_url=place.url or "auto",
            args=args if alone else (function, *args),
        )


def start_processes(function: Callable[..., None], count: int, args: tuple[Any, ...]) -> None:
    """Call ``function(index, *args)`` in as many processes, which do not know of each other.

    Raises:
        CuvlerError: one of them failed; it has said why in the log.
    """
    with _failures_are_told():
        spawn(_report_errors_of_one, args=(function, *args), nprocs=count)  # type: ignore[no-untyped-call]


@contextmanager
def _failures_are_told() -> Iterator[None]:
    try:
        yield
    except ProcessExitedException as error:
        raise CuvlerError(f"{error}; its message is above") from error


def _report_errors_of_one(index: int, function: Callable[..., None], *args: Any) -> None:
    _report_errors(function, index, *args)


def _report_errors(function: Callable[..., None], *args: Any) -> None:
    """Let a user's mistake end a started process with its message, not with a traceback."""
    try:
        function(*args)
    except CuvlerError as error:
        logger.error("%s", error)
        sys.exit(1)


@contextmanager
def _joined(place: Place, *, gpu: bool) -> Iterator[None]:
    """Do what detectron2's ``launch`` does in each process, in one that is there already."""
    if gpu:
        torch.cuda.set_device(place.local_rank)
    distributed.init_process_group(
        "nccl" if gpu else "gloo", place.url, world_size=place.size, rank=place.rank
    )
    local_size = max(place.local_size, 1)
    for first in range(0, place.size, local_size):
        group = distributed.new_group(list(range(first, first + local_size)))
        if first <= place.rank < first + local_size:
            comm._LOCAL_PROCESS_GROUP = group
    try:
        yield
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        distributed.destroy_process_group()
