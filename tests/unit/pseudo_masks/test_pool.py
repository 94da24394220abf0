import importlib
import itertools
from functools import partial

import pytest

from cuvler.pseudo_masks.pool import Crash, map_isolated, run_alone

# The processes import these by name, and the tests are not a package they know.
FUNCTIONS = """
import errno, fcntl, os, signal, time

def square(number):
    return number * number

def square_or_die(number, deadly):
    if number in deadly:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number * number

def die_once(number, folder):
    if number == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.abort()
    return number * number

def killed_or_short_of_memory(number, folder):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        raise MemoryError
    if number == 6:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    return number * number

def needs_all_the_memory(number, folder):
    with (folder / "lock").open("w") as lock:  # the kernel unlocks it when the process dies
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
    return number * number

def fail(number):
    raise RuntimeError(f"bug at {number}")
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "functions_for_the_pool.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("functions_for_the_pool")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(functions, workers):
    expected = [(number, number * number) for number in range(9)]
    assert list(map_isolated(functions.square, range(9), workers=workers)) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_process_loses_its_item_only(functions, workers):
    function = partial(functions.square_or_die, deadly={0, 4, 5})
    results = dict(map_isolated(function, range(8), workers=workers))
    segfault = Crash(out_of_memory=False)
    assert results == {n: segfault if n in {0, 4, 5} else n * n for n in range(8)}


@pytest.mark.parametrize("workers", [1, 2])
def test_want_of_memory_differs_from_other_deaths(functions, tmp_path, workers):
    function = partial(functions.killed_or_short_of_memory, folder=tmp_path)
    results = dict(map_isolated(function, range(8), workers=workers))
    short = Crash(out_of_memory=True)
    assert results == {n: short if n in {2, 4, 6} else n * n for n in range(8)}


@pytest.mark.slow
def test_the_second_chance_is_alone(functions, tmp_path):
    function = partial(functions.needs_all_the_memory, folder=tmp_path)
    results = list(map_isolated(function, range(6), workers=3))
    assert results == [(n, n * n) for n in range(6)]


def test_alone_from_the_start(functions):
    assert run_alone(functions.square, 3) == 9
    with pytest.raises(RuntimeError, match="bug at 0"):
        run_alone(functions.fail, 0)


def test_an_item_gets_a_second_chance(functions, tmp_path):
    function = partial(functions.die_once, folder=tmp_path)
    assert dict(map_isolated(function, range(6), workers=2)) == {n: n * n for n in range(6)}


def test_errors_are_not_swallowed(functions):
    with pytest.raises(RuntimeError, match="bug at 0"):
        list(map_isolated(functions.fail, range(3), workers=1))


def test_items_are_taken_as_needed(functions):
    numbers = itertools.count()
    results = map_isolated(functions.square, numbers, workers=1)
    assert next(results) == (0, 0)
    assert next(numbers) <= 2
    results.close()


def test_nothing_to_do(functions):
    assert list(map_isolated(functions.square, [], workers=2)) == []
