"""Torch devices: finding one, copying to it, and streams of work on it.

All calls of ``torch.cuda`` are here. :mod:`cuvler.gpus` lists and locks the machine's GPUs without
torch.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from cuvler.errors import ConfigError, CuvlerError


def find_device(name: str) -> torch.device:
    """Return the torch device of a name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``: a GPU if there is one, else the CPU.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device: {name!r} is not a device; choose auto, cpu, cuda, or cuda:1 of several GPUs"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: torch finds no GPU here; choose cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= count_gpus():
        raise ConfigError(f"device: {name}: there are {count_gpus()} GPUs, the first is cuda:0")
    return device


def count_gpus() -> int:
    """Return the number of GPUs that torch can use."""
    return torch.cuda.device_count()


def check_gpus(count: int) -> None:
    """Check that ``count`` GPUs are visible.

    Raises:
        ConfigError: there are fewer.
    """
    visible = count_gpus()
    if count > visible:
        raise ConfigError(
            f"{count} GPUs requested, {visible} visible; num_gpus: 0 uses the CPU",
            parameter="num_gpus",
        )


def use_gpu(index: int) -> None:
    """Make a GPU the one that ``cuda`` means in this process."""
    torch.cuda.set_device(index)


def gpu_in_use() -> int:
    """Return the index of the GPU that ``cuda`` means in this process."""
    return torch.cuda.current_device()


def seed_gpus(seed: int) -> None:
    """Seed the random numbers of the GPU in use, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)


def gpu_name() -> str:
    """Return the model of the GPU in use; empty if there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def gpu_memory(device: torch.device) -> int:
    """Return the bytes of memory of a GPU."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def has_half_precision(device: torch.device) -> bool:
    """Return whether a device multiplies float16 matrices faster than float32 ones.

    GPUs do from compute capability 7.0 on (Volta, the first with tensor cores).
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Within the block, let no GPU round the operands of float32 convolutions to TF32.

    By default torch does, but does not round those of matrix products. TF32 has the 10 fractional
    bits of float16.
    """
    flags = torch.backends.cudnn
    with flags.flags(
        enabled=flags.enabled,
        benchmark=flags.benchmark,
        deterministic=flags.deterministic,
        allow_tf32=False,
    ):
        yield


def wait_for_gpu() -> None:
    """Wait until the GPU in use, if there is one, has done all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def named_out_of_memory(batch_size: int) -> Iterator[None]:
    """Within the block, raise a CuvlerError that names the batch size if a GPU's memory is full.

    Raises:
        CuvlerError: the GPU has too little memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise CuvlerError(
            f"{reason}; use less than {batch_size} images at a time, or a GPU that no other "
            "program uses",
            parameter="batch_size",
        ) from error


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, on a GPU without waiting for the copy.

    The copy is in order with the other work of the current stream. Only from pinned memory can a
    GPU copy on its own; torch does not reuse that memory before it has.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Handed:
    """A tensor that one :class:`Stream` computes and another one uses."""

    tensor: Tensor
    _ready: torch.cuda.Event | None

    def take(self) -> Tensor:
        """Return the tensor for use in the current stream, which waits for it; the CPU does not."""
        if self._ready is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self._ready)
            # Otherwise its memory could be given to the other stream's next tensor too early.
            self.tensor.record_stream(stream)
        return self.tensor


class Stream:
    """A queue of work on a device, which runs at the same time as that of other streams.

    On a CPU, where work is done at once, it has no effect.

    Args:
        device: a torch device.
        urgent: a GPU prefers this stream's work to that of others.
    """

    def __init__(self, device: torch.device, *, urgent: bool = False) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            priority = -1 if urgent else 0
            self._stream = torch.cuda.Stream(device, priority)  # type: ignore[no-untyped-call]
            # What was computed before, such as weights, is ready for it.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def active(self) -> AbstractContextManager[object]:
        """Return a context in which this thread's work on the device is in the stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def hand_over(self, tensor: Tensor) -> Handed:
        """Prepare a tensor of this stream for use in another one."""
        if self._stream is None:
            return Handed(tensor, None)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record(self._stream)
        return Handed(tensor, ready)
