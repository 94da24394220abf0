"""Reading and writing detectron2's checkpoints, and ResNet-50 with torchvision's names (DINO)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path
from cuvler.tensor_files import NeedsUnpicklingError, read_tensors

_BACKBONE = "backbone.bottom_up."
# torchvision's names of a ResNet's modules -> detectron2's.
_TORCHVISION = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
)
# Constants that some versions of detectron2 save and others do not.
_CONSTANTS = re.compile(r"^(pixel_mean|pixel_std)$|\.cell_anchors\.\d+$|\.num_batches_tracked$")


@dataclass(frozen=True)
class Loaded:
    """What loading left open: parameter names.

    Attributes:
        missing: the model has them, the file does not.
        unexpected: the file has them, the model does not.
        mismatched: both have them, in different shapes; the model keeps its own.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def save_model(model: nn.Module, path: StrPath) -> None:
    """Write ``{"model": state dict}``, which detectron2 loads too, atomically."""
    save_state({"model": model.state_dict()}, path)


def save_state(state: Mapping[str, Any], path: StrPath) -> None:
    """Write tensors and plain Python values, atomically."""
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: StrPath) -> dict[str, Any]:
    """Read a file of :func:`save_state` into CPU memory without running pickled code.

    Raises:
        DataError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    return read_tensors(path)


def read_weights(path: StrPath, *, unpickle_sha256: str = "") -> dict[str, Tensor]:
    """Read weights under detectron2's names.

    Accepted are detectron2's checkpoints (``.pth``: ``{"model": state dict}``, ``.pkl``: arrays),
    state dicts alone (``.pth``, ``.safetensors``), and ResNet state dicts with torchvision's
    names, such as DINO's public ResNet-50, whose classifier is left out.

    Args:
        path: the file.
        unpickle_sha256: the sha256 of a file that may run code where it cannot be read otherwise.

    Raises:
        DataError: the file is missing, damaged, would run code, has another sha256, or holds
            something else.
    """
    try:
        content = read_tensors(path, unpickle_sha256=unpickle_sha256)
    except NeedsUnpicklingError as error:
        raise DataError(
            f"{error}. If you trust its source, --unpickle-sha256 with the SHA-256 that they "
            "publish lets it run code (from Python: unpickle_sha256; in a detector config: "
            "MODEL.UNPICKLE_SHA256)"
        ) from error
    state = content.get("model", content)
    if not isinstance(state, dict) or not state:
        raise DataError(f"{path}: holds no state dict")
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray | np.generic):
            value = torch.from_numpy(np.array(value))
        if not isinstance(value, Tensor):
            raise DataError(f"{path}: {name} is not a tensor but {type(value).__name__}")
        tensors[str(name).removeprefix("module.")] = value
    return _backbone_names(tensors)


def _backbone_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put a bare ResNet's weights where the detector has them."""
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        state = {
            _torchvision_name(name): value
            for name, value in state.items()
            if not name.startswith("fc.")
        }
    if "stem.conv1.weight" in state:
        return {
            _BACKBONE + name: value
            for name, value in state.items()
            if not name.startswith(("fc.", "stem.fc."))
        }
    return state


def _torchvision_name(name: str) -> str:
    for pattern, replacement in _TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return name


def load_weights(
    model: nn.Module,
    path: StrPath,
    *,
    skip: Callable[[str], bool] | None = None,
    unpickle_sha256: str = "",
) -> Loaded:
    """Load what fits by name and shape, and say what is left.

    Constants (pixel mean, anchors, batch-norm counters) count neither as missing nor unexpected.

    Args:
        model: keeps what the file does not have.
        path: see :func:`read_weights`.
        skip: tells by its name which of the file's parameters is left out.
        unpickle_sha256: see :func:`read_weights`.

    Raises:
        DataError: as :func:`read_weights`, or no parameter of the file fits the model.
    """
    weights = read_weights(path, unpickle_sha256=unpickle_sha256)
    if skip is not None:
        weights = {name: value for name, value in weights.items() if not skip(name)}
    own = model.state_dict()
    mismatched = [n for n in weights if n in own and own[n].shape != weights[n].shape]
    fitting = {n: w for n, w in weights.items() if n in own and n not in mismatched}
    if not any(not _CONSTANTS.search(name) for name in fitting):
        raise DataError(
            f"{path}: none of its {len(weights)} parameters fits the detector; "
            f"the first is {next(iter(weights))}"
        )
    model.load_state_dict(fitting, strict=False)
    missing = [n for n in own if n not in weights and not _CONSTANTS.search(n)]
    unexpected = [n for n in weights if n not in own and not _CONSTANTS.search(n)]
    return Loaded(tuple(missing), tuple(unexpected), tuple(mismatched))


def load_trained(model: nn.Module, path: StrPath, *, unpickle_sha256: str = "") -> None:
    """Load the weights of a trained detector; every parameter must fit.

    Raises:
        DataError: as :func:`load_weights`, or a parameter is missing, left over or of another
            shape.
    """
    loaded = load_weights(model, path, unpickle_sha256=unpickle_sha256)
    for what, names in (
        ("lacks", loaded.missing),
        ("has beside the detector's", loaded.unexpected),
        ("has in another shape", loaded.mismatched),
    ):
        if names:
            raise DataError(
                f"{path}: is not of this detector: it {what} {names[0]}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                + "; is its config.yaml beside it?"
            )
