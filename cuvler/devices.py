"""The devices that are asked for, and those that are there."""

import torch

from cuvler.errors import ConfigError


def find_device(name: str) -> torch.device:
    """Find the device that ``cpu``, ``cuda``, ``cuda:1`` or ``auto``, a GPU if any, stands for.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device: {name!r} is none; choose auto, cpu, cuda or, of several GPUs, cuda:1"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: torch finds no GPU here; choose cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device: {name}, but the GPUs here end before; cuda:0 is the first")
    return device


def check_gpus(count: int) -> None:
    """See that so many GPUs are there.

    Raises:
        ConfigError: there are fewer.
    """
    visible = torch.cuda.device_count()
    if count > visible:
        raise ConfigError(
            f"{count} GPUs were asked for, {visible} are visible; --num-gpus 0 uses the CPU"
        )
