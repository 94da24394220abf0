import io
import logging
import sys

import pytest

from cuvler import progress
from cuvler.progress import Progress, duration, with_progress


class Clock:
    """A clock that each item moves on by so many seconds."""

    def __init__(self, monkeypatch, seconds):
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        self.seconds = seconds

    def items(self, count):
        for number in range(count):
            self.now += self.seconds
            yield number


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="cuvler.progress")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_log_gets_a_line_a_minute_and_one_at_the_end(monkeypatch, lines):
    clock = Clock(monkeypatch, 7)
    assert list(with_progress(clock.items(20), 20)) == list(range(20))
    assert lines() == [
        "9 of 20 images, 0.143 a second, 1 min 17 s left",
        "18 of 20 images, 0.143 a second, 14.0 s left",
        "20 of 20 images, 0.143 a second, 0.0 s left",
    ]


def test_what_is_quick_says_nothing(monkeypatch, lines):
    clock = Clock(monkeypatch, 1)
    list(with_progress(clock.items(50), 50))
    assert lines() == []


def test_batches_are_counted_by_their_items(monkeypatch, lines):
    clock = Clock(monkeypatch, 120)
    with Progress(64, unit="picture") as bar:
        for _ in clock.items(2):
            bar.update(32)
    assert lines()[0] == "32 of 64 pictures, 0.267 a second, 2 min 0 s left"


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch, lines):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = Clock(monkeypatch, 100)
    list(with_progress(clock.items(3), 3))
    assert "3/3" in terminal.getvalue()
    assert lines() == []


def test_silent_processes_are_silent(monkeypatch, lines, capsys):
    clock = Clock(monkeypatch, 100)
    with Progress(3, show=False) as bar:
        for _ in clock.items(3):
            bar.update()
    assert lines() == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (3.44, "3.4 s"), (59.99, "60.0 s"), (125, "2 min 5 s"), (4321, "1 h 12 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
