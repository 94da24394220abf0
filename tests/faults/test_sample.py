"""A small sample of ``make fault-test``, of the stages without detectron2."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_sample_of_damage_and_kills():
    words = ["--light", "--cases", "1", "--kills", "1", "--seed", "1"]
    command = [sys.executable, "-m", "tests.faults", *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "resumed, equal" in result.stdout
