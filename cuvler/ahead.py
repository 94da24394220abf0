"""Compute results in a thread ahead of their use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_ahead(
    function: Callable[[_T], _R], items: Iterable[_T], ahead: int
) -> Generator[_R, None, None]:
    """Apply a function to items, in order, up to ``ahead`` of them before their results are used.

    The items are iterated in the caller's thread, the function is called in one other thread;
    without ``ahead``, in the caller's too. At most ``ahead`` + 1 items and results are in memory.
    An error of the function is raised in the turn of its item; one of the items at once, and the
    results under way are lost. When the generator is closed, the thread ends with the call that it
    is in.
    """
    if not ahead:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
    waiting: deque[Future[_R]] = deque()
    try:
        # A thread interrupted while it starts is not waited for; items may have processes that die.
        pool.submit(int).result()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except BaseException:
            # Interrupted a second time: by Ctrl-C, or by torch for another of its dead processes.
            pool.shutdown()
            raise
