"""The processes that load images for torch, and their death."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from cuvler.errors import CuvlerError


class LoaderDiedError(CuvlerError):
    """A process that loads images was killed, or ran out of memory."""


@contextmanager
def noticing_dead_loaders() -> Iterator[None]:
    """Within the block, raise a LoaderDiedError if a ``DataLoader``'s process dies.

    torch raises a RuntimeError then, from a signal handler: at any place of the block, and not only
    where the loader is read.

    Raises:
        LoaderDiedError: a process died, or raised a MemoryError.
    """
    try:
        yield
    except (RuntimeError, MemoryError, EOFError, OSError) as error:
        if not _is_of_dead_loader(error):
            raise
        _release_loader(error)
        reason = str(error).partition("\n")[0]
        raise LoaderDiedError(
            f"a process that loads images died, probably for want of memory ({reason}); use fewer "
            "of them, or give the job more memory, and run again",
            parameter="workers",
        ) from error


def _release_loader(error: BaseException | None) -> None:
    """Clear the frames of an error and its causes, which keep the loader.

    As long as it exists, torch raises its error again at the end of any other process.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _is_of_dead_loader(error: Exception) -> bool:
    match error:
        case RuntimeError():
            # Other errors in such a process are raised with "in DataLoader worker process 0".
            return re.search(r"DataLoader worker \(pid", str(error)) is not None
        case MemoryError():
            return "DataLoader worker" in str(error)
        case OSError(filename=name):
            # Tensors are passed by sockets, which have no file name here.
            return name is None and isinstance(error, ConnectionError | FileNotFoundError)
    return True
