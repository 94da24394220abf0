"""A process pool in which the death of a process costs one item, not the run."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Generic, Self, TypeVar

from threadpoolctl import threadpool_limits

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_isolated(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int
) -> Iterator[tuple[_Item, _Result | None]]:
    """Apply a function to items in worker processes, in order.

    A process can die in compiled code (segmentation fault, abort) or by the kernel's
    out-of-memory killer. Every item that the pool was processing is then retried once, one at a
    time in a separate process; the result of an item that dies again is None.

    Args:
        function: importable by name; must not return None.
        items: consumed lazily; at most 2 * ``workers`` are pending.
        workers: number of processes.

    Yields:
        Each item with its result, in the order of ``items``.

    Raises:
        Exception: any exception of ``function``.
    """
    with _Pool(function, workers) as pool, _Pool(function, 1) as single:
        waiting: deque[tuple[_Item, Future[_Result]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(item)))
            if len(waiting) == 2 * workers:
                yield single.settle(*waiting.popleft())
        while waiting:
            yield single.settle(*waiting.popleft())


class _Pool(Generic[_Item, _Result]):
    """An executor that starts on demand and restarts after the death of a process."""

    def __init__(self, function: Callable[[_Item], _Result], workers: int) -> None:
        self._function = function
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, item: _Item) -> "Future[_Result]":
        if self._executor is not None:
            try:
                return self._executor.submit(self._function, item)
            except BrokenProcessPool:
                self._executor.shutdown()
        self._executor = ProcessPoolExecutor(
            self._workers,
            # A forked child inherits locks held by threads that do not exist in it.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_one_thread,
        )
        return self._executor.submit(self._function, item)

    def settle(self, item: _Item, future: "Future[_Result]") -> tuple[_Item, _Result | None]:
        """Wait for another pool's future; if its process died, retry the item in this pool."""
        for attempt in (future, None):
            attempt = attempt or self.submit(item)
            wait([attempt])
            # Only the death of a process is caught; result() raises any other exception.
            if not isinstance(attempt.exception(), BrokenProcessPool):
                return item, attempt.result()
        return item, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def _one_thread() -> None:
    # One thread per worker: the processes already use all cores.
    threadpool_limits(1)
