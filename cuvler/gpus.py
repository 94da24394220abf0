"""The GPUs of this machine and locks on them.

Snakemake counts GPUs but does not assign them to jobs. Commands that run at the same time divide
them among themselves, with one lock file per GPU.
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
_TIMEOUT = 60  # seconds; the first query loads the driver, which takes some


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: its name in ``CUDA_VISIBLE_DEVICES``.
        uuid: the same in every process, regardless of ``CUDA_VISIBLE_DEVICES``.
    """

    name: str
    uuid: str


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Return the NVIDIA GPUs that a process may use, without importing torch.

    These are the GPUs listed by ``nvidia-smi``, restricted by ``CUDA_VISIBLE_DEVICES``. The list is
    empty if ``nvidia-smi`` is missing or fails.

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
    """Return each GPU's UUID by index."""
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
    """Return the UUID of a device given its index, its UUID or a prefix of it, or a MIG device."""
    if name.startswith("MIG-") and uuids:
        return name
    starts = (uuid for uuid in uuids.values() if name.startswith("GPU-") and uuid.startswith(name))
    return uuids.get(name) or next(starts, None)


@contextmanager
def hold_gpus(count: int, environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Lock GPUs that no other command of this user has locked, and make only these visible.

    The locks are released when the process ends, however it ends. If fewer GPUs are free, some are
    shared with other commands, which is logged; if fewer are visible, nothing changes. Call this
    before torch initializes CUDA.

    Raises:
        CuvlerError: the lock files cannot be written, or ``nvidia-smi`` does not answer.
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
            logger.warning("%s: shared with other commands, no other GPU is free", names)
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
    """Lock a GPU until ``locks`` is closed; return False if another command holds it."""
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
