"""A process pool that loses one item, not the run, when a process dies."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Generic, Self, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_isolated(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result | None]]:
    """Apply a function to items in other processes, in order.

    Compiled code can kill the process it runs in (a segmentation fault, an abort, the kernel's
    out-of-memory killer). Every item the dead pool was busy with is then tried once more, alone
    in a process of its own; one that dies again gives None.

    Args:
        function: must be importable by name, and must not return None.
        items: taken as they are needed; at most 2 x ``workers`` wait at a time.
        workers: number of processes.

    Yields:
        Each item with its result, in the order of ``items``.

    Raises:
        Exception: whatever ``function`` raises.
    """
    with _Pool(function, workers) as pool, _Pool(function, 1) as alone:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(item)))
            if len(waiting) == 2 * workers:
                yield alone.settle(*waiting.popleft())
        while waiting:
            yield alone.settle(*waiting.popleft())


class _Pool(Generic[Item, Result]):
    """Processes that are started when needed, and started anew when one has died."""

    def __init__(self, function: Callable[[Item], Result], workers: int) -> None:
        self._function = function
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, item: Item) -> "Future[Result]":
        if self._executor is not None:
            try:
                return self._executor.submit(self._function, item)
            except BrokenProcessPool:
                self._executor.shutdown()
        self._executor = ProcessPoolExecutor(
            self._workers,
            # A forked child inherits the locks of threads that it does not have.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_one_thread,
        )
        return self._executor.submit(self._function, item)

    def settle(self, item: Item, future: "Future[Result]") -> tuple[Item, Result | None]:
        """Wait for another pool's future; where its process died, try the item here."""
        for attempt in (future, None):
            attempt = attempt or self.submit(item)
            wait([attempt])
            # Only the death of a process is passed over; result() raises anything else.
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
    # The processes are the parallelism; libraries with threads of their own would fight over it.
    threadpool_limits(1)
