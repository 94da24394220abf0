import threading

import pytest

from cuvler.ahead import map_ahead


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_results_are_in_order(ahead):
    assert list(map_ahead(str, range(5), ahead)) == list("01234")
    assert list(map_ahead(str, [], ahead)) == []


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_few_items_are_in_memory(ahead):
    taken = []
    results = map_ahead(str, (taken.append(item) or item for item in range(9)), ahead)
    for used, _ in enumerate(results):
        assert len(taken) - used <= ahead + 1


@pytest.mark.parametrize("ahead", [0, 2])
def test_errors_come_after_the_results_before_them(ahead):
    results = map_ahead(lambda item: 6 // item, [3, 2, 0, 1], ahead)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_the_thread_ends_when_the_results_are_no_longer_wanted():
    started, go_on = threading.Event(), threading.Event()
    calls = []

    def function(item):
        calls.append(item)
        started.set()
        go_on.wait(10)

    results = map_ahead(function, range(9), 2)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)  # before it starts
    results = map_ahead(function, interrupted_after(started, go_on), 2)
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert not threads()
    assert calls == [0]


def interrupted_after(started, go_on):
    """Two items, then Ctrl-C while the first of them is in the making."""
    yield 0
    yield 1
    started.wait(10)
    # The call in the making goes on to its end.
    threading.Timer(0.05, go_on.set).start()
    raise KeyboardInterrupt
