"""Read and write detectron2 checkpoints, and read ResNets with torchvision's parameter names."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path
from cuvler.tensor_files import NeedsUnpicklingError, read_tensors, require_finite

# The weights of a trained detector, in two formats.
MODEL = "model_final.pth"
SAFE_MODEL = "model_final.safetensors"
_BACKBONE = "backbone.bottom_up."
# torchvision's names of ResNet modules -> detectron2's.
_TORCHVISION = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
)
# Constants that only some versions of detectron2 save.
_CONSTANTS = re.compile(r"^(pixel_mean|pixel_std)$|\.cell_anchors\.\d+$|\.num_batches_tracked$")


@dataclass(frozen=True)
class Loaded:
    """Names of parameters that were not loaded.

    Attributes:
        missing: in the model only.
        unexpected: in the file only.
        mismatched: in both, with different shapes; the model's values are kept.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def save_model(model: nn.Module, path: StrPath) -> None:
    """Write ``{"model": state dict}`` atomically; detectron2 can load the file."""
    save_state({"model": model.state_dict()}, path)


def save_safetensors(model: nn.Module, path: StrPath) -> None:
    """Write the state dict as safetensors, atomically; such a file cannot run code."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def save_state(state: Mapping[str, Any], path: StrPath) -> None:
    """Write tensors and plain Python values, atomically."""
    # A stream, because torch writes a path's name into the file: equal states give equal bytes.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(dict(state), stream)


def load_state(path: StrPath, keys: Collection[str] = ()) -> dict[str, Any]:
    """Load a file written by :func:`save_state` to the CPU, without unpickling code.

    Raises:
        DataError: the file is missing, damaged, has other objects than tensors and plain values,
            or lacks one of ``keys``.
    """
    remedy = "delete it and run again; the training then starts from the beginning"
    state = read_tensors(path, remedy=remedy)
    if missing := set(keys) - state.keys():
        raise DataError(f"{path}: not a training's checkpoint ({min(missing)} missing); {remedy}")
    return state


def read_weights(path: StrPath, *, unpickle_sha256: str = "") -> dict[str, Tensor]:
    """Read weights and convert their names to detectron2's.

    Accepts detectron2 checkpoints (``.pth``: ``{"model": state dict}``, ``.pkl``: arrays), plain
    state dicts (``.pth``, ``.safetensors``), and ResNet state dicts with torchvision's names, such
    as DINO's public ResNet-50; the classifier of a ResNet is dropped.

    Args:
        path: the file.
        unpickle_sha256: SHA-256 of a trusted file; permits unpickling that file only.

    Raises:
        DataError: the file is missing or damaged, needs unpickling, has a different SHA-256, or
            is not a state dict.
    """
    try:
        content = read_tensors(path, unpickle_sha256=unpickle_sha256)
    except NeedsUnpicklingError as error:
        raise DataError(
            f"{error}. If you trust its source, unpickle_sha256 with the SHA-256 that they "
            "publish lets it run code (in a detector config: MODEL.UNPICKLE_SHA256)",
            parameter="unpickle_sha256",
        ) from error
    state = content.get("model", content)
    if not isinstance(state, dict) or not state:
        raise DataError(f"{path}: no state dict in this file")
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray | np.generic):
            value = torch.from_numpy(np.array(value))
        if not isinstance(value, Tensor):
            raise DataError(f"{path}: {name} is not a tensor but {type(value).__name__}")
        tensors[str(name).removeprefix("module.")] = value
    return _backbone_names(tensors)


def _backbone_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the backbone's prefix to the names of a plain ResNet."""
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
    """Load the parameters that match by name and shape.

    Constants (pixel mean, anchors, batch-norm counters) are never reported.

    Args:
        model: parameters that are not in the file keep their values.
        path: see :func:`read_weights`.
        skip: returns whether to ignore the file's parameter of a given name.
        unpickle_sha256: see :func:`read_weights`.

    Returns:
        The parameters that were not loaded.

    Raises:
        DataError: as :func:`read_weights`, or no parameter matches the model.
    """
    weights = read_weights(path, unpickle_sha256=unpickle_sha256)
    if skip is not None:
        weights = {name: value for name, value in weights.items() if not skip(name)}
    own = model.state_dict()
    mismatched = [n for n in weights if n in own and own[n].shape != weights[n].shape]
    fitting = {n: w for n, w in weights.items() if n in own and n not in mismatched}
    if not any(not _CONSTANTS.search(name) for name in fitting):
        raise DataError(
            f"{path}: none of its {len(weights)} parameters matches the detector; "
            f"the first is {next(iter(weights))}"
        )
    require_finite(path, fitting)
    model.load_state_dict(fitting, strict=False)
    missing = [n for n in own if n not in weights and not _CONSTANTS.search(n)]
    unexpected = [n for n in weights if n not in own and not _CONSTANTS.search(n)]
    return Loaded(tuple(missing), tuple(unexpected), tuple(mismatched))


def load_trained(model: nn.Module, path: StrPath, *, unpickle_sha256: str = "") -> None:
    """Load the weights of a trained detector; all parameters must match.

    Raises:
        DataError: as :func:`load_weights`, or a parameter is missing, unexpected or of a
            different shape.
    """
    loaded = load_weights(model, path, unpickle_sha256=unpickle_sha256)
    for what, names in (
        ("lacks", loaded.missing),
        ("has the unexpected", loaded.unexpected),
        ("has with a different shape", loaded.mismatched),
    ):
        if names:
            raise DataError(
                f"{path}: does not match this detector: it {what} {names[0]}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                + "; put its config.yaml into the same folder, or name its detector config"
            )
