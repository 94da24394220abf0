"""Selecting and checking torch devices."""

import torch

from cuvler.errors import ConfigError


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
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {name}: there are {torch.cuda.device_count()} GPUs, the first is cuda:0"
        )
    return device


def check_gpus(count: int) -> None:
    """Check that ``count`` GPUs are visible.

    Raises:
        ConfigError: there are fewer.
    """
    visible = torch.cuda.device_count()
    if count > visible:
        raise ConfigError(
            f"{count} GPUs requested, {visible} visible; num_gpus: 0 uses the CPU",
            parameter="num_gpus",
        )
