"""The GPUs of this machine: how many there are, and which ones a command may use.

Snakemake counts GPUs, but does not say which of them a job holds. So commands that run at the same
time divide the GPUs among themselves, by a lock file for each.
"""

import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cuvler.errors import CuvlerError

logger = logging.getLogger(__name__)

_QUERY = ("--query-gpu=index,uuid", "--format=csv,noheader")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_TIMEOUT = 60  # seconds; a driver that is loaded first takes some


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: in ``CUDA_VISIBLE_DEVICES``.
        uuid: the same in every process, whichever GPUs are visible there.
    """

    name: str
    uuid: str


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """List the NVIDIA GPUs that a process may use, without importing torch.

    They are those that ``nvidia-smi`` lists, of which ``CUDA_VISIBLE_DEVICES`` may choose some.
    Where ``nvidia-smi`` is missing or fails, there are none.

    Raises:
        CuvlerError: ``nvidia-smi`` does not answer.
    """
    uuids = _uuids()
    visible = environment.get(_VISIBLE)
    if visible is None:
        return [Gpu(uuid, uuid) for uuid in uuids.values()]
    found = []
    for name in visible.split(","):
        uuid = _uuid(name.strip(), uuids)
        if uuid is None:  # CUDA ignores what follows an unknown device
            break
        found.append(Gpu(name.strip(), uuid))
    return found


def _uuids() -> dict[str, str]:
    """Ask for each GPU's index and UUID."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    words = [program, *_QUERY]
    try:
        answer = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CuvlerError(
            f"{program}: no answer in {_TIMEOUT} s, the driver hangs; restart the machine"
        ) from error
    if answer.returncode:
        return {}
    rows = (line.partition(",") for line in answer.stdout.splitlines() if "," in line)
    return {index.strip(): uuid.strip() for index, _, uuid in rows}


def _uuid(name: str, uuids: Mapping[str, str]) -> str | None:
    """The UUID of a device named by its index, its UUID or the start of it, or as a MIG device."""
    if name.startswith("MIG-") and uuids:
        return name
    starts = (uuid for uuid in uuids.values() if name.startswith("GPU-") and uuid.startswith(name))
    return uuids.get(name) or next(starts, None)


@contextmanager
def hold_gpus(count: int, environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Hold GPUs that no other command of this user holds, and make only these visible.

    The locks end with the process, however it ends. Where fewer GPUs are free, GPUs are shared with
    other commands, which is logged; where fewer are visible, nothing is changed. To be called
    before torch has looked for GPUs.

    Raises:
        CuvlerError: the lock files cannot be written, or as :func:`visible_gpus`.
    """
    visible = visible_gpus(environment) if count else []
    if not 0 < count <= len(visible):
        yield
        return
    before = environment.get(_VISIBLE)
    with ExitStack() as locks:
        free: list[Gpu] = []
        for gpu in visible:
            if len(free) < count and _lock(gpu, locks):
                free.append(gpu)
        shared = [gpu for gpu in visible if gpu not in free][: count - len(free)]
        if shared:
            names = ", ".join(gpu.name for gpu in shared)
            logger.warning("%s: in use by other commands too, as no other GPU is free", names)
        if count < len(visible):
            environment[_VISIBLE] = ",".join(gpu.name for gpu in [*free, *shared])
        try:
            yield
        finally:
            if before is None:
                environment.pop(_VISIBLE, None)
            else:
                environment[_VISIBLE] = before


def _lock(gpu: Gpu, locks: ExitStack) -> bool:
    """Lock a GPU until ``locks`` are closed; False if another command holds it."""
    folder = Path(tempfile.gettempdir(), f"cuvler-gpus-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        lock = os.open(folder / f"{gpu.uuid.replace('/', '-')}.lock", flags, 0o600)
    except OSError as error:
        raise CuvlerError(
            f"{folder}: cannot write lock files of GPUs, {error.strerror}; "
            "set TMPDIR to a folder that can be written"
        ) from error
    locks.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
