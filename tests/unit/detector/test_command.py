import re

import pytest
from click.testing import CliRunner

pytest.importorskip("detectron2")

from cuvler.commands import detector
from cuvler.errors import ConfigError


def invoke(annotations, root, output, *words):
    files = ["--annotations", annotations, "--image-root", root, "--output", output]
    more = ["--num-gpus", "0", "--workers", "0"]
    return CliRunner().invoke(detector.command, [str(word) for word in (*files, *more, *words)])


def test_command_trains_with_the_overrides(tiny_dataset, tiny_overrides, tmp_path):
    words = (
        "--detector-config",
        "demo",
        *tiny_overrides,
        "SOLVER.MAX_ITER",
        "1",
        "VIS_PERIOD",
        "-1",
    )
    result = invoke(*tiny_dataset, tmp_path / "run", *words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "model_final.pth").exists()
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "MAX_ITER: 1\n" in config
    assert "VIS_PERIOD: -1\n" in config


def test_errors_are_one_message(tiny_dataset, tmp_path):
    result = invoke(*tiny_dataset, tmp_path / "run", "--detector-config", "best")
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "run").exists()
    result = invoke(
        *tiny_dataset, tmp_path / "run", "--detector-config", "demo", "--wieghts", "a.pth"
    )
    assert result.exit_code == 2
    assert re.search("No such option.*--wieghts", result.output)
