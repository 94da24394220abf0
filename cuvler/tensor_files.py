"""Reading files of tensors (``.pth``, ``.safetensors``, ``.pkl``), checked for damage.

No code of theirs is run: ``.pth`` files are read with ``weights_only``, detectron2's ``.pkl`` files
by an unpickler that builds numpy arrays and nothing else. A file that holds more is unpickled only
if the caller gives its SHA-256.

A file must have the SHA-256 in ``FILE.sha256`` if that exists; every file that this program
downloads has one. Others are checked by the CRC-32 that a zip, the format of ``torch.save``, has
for each tensor. The other formats, and ``torch.save``'s before torch 1.6, have no checksums.
"""

import hashlib
import io
import logging
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from cuvler.download.digests import recorded_sha256, verified_sha256
from cuvler.errors import DataError
from cuvler.files import StrPath

logger = logging.getLogger(__name__)

_FETCH = "fetch it again, or, if this program made it, delete it and run again"
_CHUNK = 2**20  # bytes


class NeedsUnpicklingError(DataError):
    """A file cannot be read without running the code that it names."""

    def __init__(self, path: StrPath, reason: object, remedy: str = _FETCH) -> None:
        super().__init__(
            f"{path}: not a file of tensors ({reason}); {remedy}, or save its state dict "
            "alone, as .safetensors"
        )


def read_tensors(
    path: StrPath, *, unpickle_sha256: str = "", remedy: str = _FETCH
) -> dict[str, Any]:
    """Read a dictionary of tensors into CPU memory, and check the file's digest or checksums.

    Args:
        path: a ``.safetensors`` file, a ``.pkl`` file of numpy arrays, or, with any other suffix,
            a file of ``torch.save``. The last two may also hold plain Python values.
        unpickle_sha256: the SHA-256 of a file that may run code if it cannot be read otherwise.
        remedy: what to do about a damaged file, for messages.

    Raises:
        NeedsUnpicklingError: the file holds more than tensors, arrays and plain values.
        DataError: the file is missing, damaged, not a dictionary, or has another SHA-256.
    """
    path = Path(path)
    checked = _check_record(path)
    readers: dict[str, Callable[[Path], Any]] = {
        ".pkl": _read_pickle,
        ".safetensors": load_file,
    }
    try:
        content = _read(readers.get(path.suffix, _read_torch), path, checked, remedy)
    except NeedsUnpicklingError:
        if not unpickle_sha256:
            raise
        content = _unpickle(path, unpickle_sha256)
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a state dict but {type(content).__name__}")
    return content


def require_finite(path: StrPath, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise a DataError if weights of a file are infinite or NaN, which only damage makes them."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise DataError(f"{path}: damaged ({name} has infinite or NaN values); {_FETCH}")


def _check_record(path: Path) -> bool:
    """Check a file against ``path.sha256``; return False if there is none."""
    if recorded_sha256(path) is None:
        return False
    verified_sha256(path)
    return True


def _read(read: Callable[[Path], Any], path: Path, checked: bool, remedy: str) -> Any:
    try:
        if not checked:
            _check_members(path)
        return read(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: damaged ({_reason(error)}); {remedy}") from error
    except pickle.UnpicklingError as error:
        raise NeedsUnpicklingError(path, _reason(error), remedy) from error
    # On damaged files the readers raise anything, SyntaxError and AssertionError included.
    except Exception as error:
        reason = _reason(error)
        raise DataError(f"{path}: not a file of tensors ({reason}); {remedy}") from error


def _check_members(path: Path) -> None:
    """Check the CRC-32 of everything in a zip, which torch ignores; log if the file has none."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            logger.info(
                "%s: without checksums, and there is no %s.sha256 (`sha256sum %s` makes one); "
                "damage to its numbers would pass unnoticed",
                path,
                path.name,
                path.name,
            )
            return
        with zipfile.ZipFile(stream) as archive:
            for name in archive.namelist():
                # 0.45 s a GB; testzip, which reads smaller pieces, takes 0.7 s.
                with archive.open(name) as member:
                    while member.read(_CHUNK):
                        pass


def _reason(error: BaseException) -> str:
    """Return the first line of an error's message, or what torch refuses to build."""
    message = str(error)
    if refused := re.search(r"GLOBAL (\S+)", message):
        return f"it asks for {refused[1]}"
    # torch's first lines advise to read the file without its checks.
    if inner := re.search(r"WeightsUnpickler error:\s*(\S.*)", message):
        return inner[1]
    return message.partition("\n")[0] or type(error).__name__


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as stream:
        return _ArrayUnpickler(stream, encoding="latin1").load()


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays of numbers and plain containers; any other callable is refused, not run."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for the callable that a pickle names."""
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) in _PICKLED:
            return _PICKLED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


class _Dtype:
    """A dtype of numbers. numpy's own would take any flags from a pickle, and can crash on them."""

    def __init__(self, name: str, *_: object) -> None:
        if not re.fullmatch(r"[biufc]\d{1,2}", name):
            raise pickle.UnpicklingError(f"it asks for arrays of {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array that takes only numbers, and as many as its shape says, from a pickle."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, data = state[-4:]
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
        # numpy's stubs ask for an np.bool, numpy for an int.
        super().__setstate__((1, shape, dtype.dtype, int(fortran), data))  # type: ignore[arg-type]


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    content = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(content, dtype.dtype, count=1)[0]


# What numpy's pickles of arrays and scalars name, in any protocol.
_PICKLED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "bytes"): lambda: b"",  # Python 3's way to pickle no bytes for Python 2
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of _reconstruct
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(0),
    ("numpy.core.multiarray", "scalar"): _scalar,
}


def _unpickle(path: Path, sha256: str) -> Any:
    """Read a file that may run code, if its SHA-256 is the given one."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise DataError(f"{path}: has the sha256 {found}, not {sha256}; it was not unpickled")
    # Unpickle the bytes that were checked, not the file, which could change in between.
    stream = io.BytesIO(content)
    try:
        if path.suffix == ".pkl":
            return pickle.load(stream, encoding="latin1")  # noqa: S301 (its sha256 was given)
        return torch.load(stream, map_location="cpu", weights_only=False)
    except Exception as error:
        raise DataError(f"{path}: not a pickle ({_reason(error)})") from error
