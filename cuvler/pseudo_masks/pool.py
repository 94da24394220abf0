"""A process pool in which the death of a process costs one item, not the run."""

import errno
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from threadpoolctl import threadpool_limits

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Crash:
    """The process of an item died, or ran out of memory, while it was the only one.

    Attributes:
        out_of_memory: the system had no memory, or the process was killed, as the kernel does then.
    """

    out_of_memory: bool


def map_isolated(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int
) -> Iterator[tuple[_Item, _Result | Crash]]:
    """Apply a function to items in worker processes, in order.

    A process can die in compiled code (segmentation fault, abort) or by the kernel's
    out-of-memory killer. The pool then ends, and every item that it was processing is retried once
    by :func:`run_alone`, when no other process of the pool is running, before the pool restarts.

    Args:
        function: importable by name.
        items: consumed lazily; at most 2 * ``workers`` are pending.
        workers: number of processes.

    Yields:
        Each item with its result, in the order of ``items``.

    Raises:
        Exception: any exception of ``function``, except for want of memory.
    """
    with _Pool(function, workers) as pool:
        for item in items:
            pool.submit(item)
            if pool.pending == 2 * workers:
                yield pool.next_result()
        while pool.pending:
            yield pool.next_result()


def run_alone(function: Callable[[_Item], _Result], item: _Item) -> _Result | Crash:
    """Apply a function to one item in a process of its own.

    Raises:
        Exception: any exception of ``function``, except for want of memory.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_send_outcome, args=(sender, function, item))
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:  # it died
        process.join()
        return Crash(out_of_memory=process.exitcode == -signal.SIGKILL)
    process.join()
    if isinstance(outcome, BaseException):
        if _lacks_memory(outcome):
            return Crash(out_of_memory=True)
        raise outcome
    result: _Result = outcome[0]
    return result


# Spawned: a forked child inherits locks held by threads that do not exist in it.
_CONTEXT = multiprocessing.get_context("spawn")


def _send_outcome(
    sender: "Connection[Any, Any]", function: Callable[[_Item], _Result], item: _Item
) -> None:
    _one_thread()
    try:
        sender.send((function(item),))
    except Exception as error:  # noqa: BLE001 (raised by the parent)
        sender.send(error)


def _lacks_memory(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )


class _Pool(Generic[_Item, _Result]):
    """Pending items of an executor that starts on demand, also after the death of a process."""

    def __init__(self, function: Callable[[_Item], _Result], workers: int) -> None:
        self._function = function
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self._waiting: deque[tuple[_Item, Future[_Result | Crash]]] = deque()

    @property
    def pending(self) -> int:
        """Number of items with results that have not been taken."""
        return len(self._waiting)

    def submit(self, item: _Item) -> None:
        """Start processing an item."""
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self._workers, mp_context=_CONTEXT, initializer=_one_thread
            )
        try:
            future: Future[_Result | Crash] = self._executor.submit(self._function, item)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self._waiting.append((item, future))

    def next_result(self) -> tuple[_Item, _Result | Crash]:
        """Wait for the result of the first pending item."""
        item, future = self._waiting[0]
        wait([future])
        if _died(future):
            self._retry_alone()
            item, future = self._waiting[0]
        self._waiting.popleft()
        return item, future.result()

    def _retry_alone(self) -> None:
        """End the pool, and process the items that died, one at a time."""
        wait([future for _, future in self._waiting])
        self._end()
        for index, (item, future) in enumerate(self._waiting):
            if _died(future):
                retried: Future[_Result | Crash] = Future()
                retried.set_result(run_alone(self._function, item))
                self._waiting[index] = item, retried

    def _end(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()


def _died(future: "Future[Any]") -> bool:
    error = future.exception()
    return isinstance(error, BrokenProcessPool) or _lacks_memory(error)


def _one_thread() -> None:
    # One thread per worker: the processes already use all cores.
    threadpool_limits(1)
