import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from cuvler.cli import COMMANDS, cuvler


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from cuvler.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
    )


def test_help_is_quick():
    start = time.perf_counter()
    result = run("--help")
    assert time.perf_counter() - start < 1
    assert all(name in result.stdout for name in COMMANDS)


def test_importing_the_package_is_light():
    heavy = "{'torch', 'numpy', 'pandas', 'zarr', 'numba', 'detectron2', 'matplotlib'}"
    script = f"import cuvler, cuvler.cli, sys; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = CliRunner().invoke(cuvler, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_a_mistake_of_the_users_is_one_message(tmp_path):
    folder = tmp_path / "nowhere"
    result = run(
        "images", "--dataset", "mine", "--image-root", str(folder), "--output", str(tmp_path / "x")
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: datasets.mine.images: there is no folder {folder}")
    assert "Traceback" not in result.stderr


def test_an_unknown_command_is_a_usage_error():
    assert run("votecut").returncode == 2
