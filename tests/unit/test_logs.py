"""Names with control characters are printed escaped, wherever they are printed."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvler.errors import ImageError
from cuvler.image_status import ImageStatus
from cuvler.logs import Formatter, printable

NASTY = "a\n12:00:00 ERROR b\r\x1b[2J\x9b31m\u202egpj.\udcff.jpg"
ESCAPED = r"a\n12:00:00 ERROR b\r\x1b[2J\x9b31m\u202egpj.\udcff.jpg"


def log(message, *arguments):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter("%(levelname)s %(message)s"))
    handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, message, arguments, None))
    return stream.getvalue()


@pytest.mark.parametrize("kind", [str, Path, ValueError])
def test_a_name_stays_on_its_line(kind):
    assert log("%s: %d of %.1f", kind(NASTY), 3, 4.5) == f"INFO {ESCAPED}: 3 of 4.5\n"


def test_a_message_of_several_lines_keeps_them():
    assert log("one\n\ttwo \x1b[2J") == "INFO one\n\ttwo \\x1b[2J\n"
    assert log("%(a)s and %(b)s", {"a": 1, "b": [NASTY]}).count("\n") == 1


@pytest.mark.parametrize("name", ["photo 1.jpg", "ünï日本.jpg", "👩‍👩‍👧.jpg", "non\u202fbreaking"])
def test_ordinary_names_are_unchanged(name):
    assert printable(name) == name


@given(st.text())
def test_what_is_printed_is_one_line_that_can_be_encoded(text):
    assert len(printable(text).splitlines()) <= 1
    printable(text).encode()


def test_an_image_is_named_on_one_line():
    error = ImageError(ImageStatus.MISSING, f"{NASTY}: no such file")
    assert str(error) == f"{ESCAPED}: no such file"


def test_the_command_prints_escaped(tmp_path):
    name = "a\nb\x1b[2J.jpg"
    (tmp_path / name).write_bytes(b"no image")
    command = [sys.executable, "-c", "from cuvler.cli import main; main()", "discover", name]
    command += ["--backbone", "pixels_p16", "--output", "found"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    warning, error = result.stderr.splitlines()
    assert r"a\nb\x1b[2J.jpg: cannot identify" in warning
    assert error == "Error: of 1 images 1 could not be opened; the warnings name them"
