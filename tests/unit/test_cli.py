import re
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from cuvler.cli import COMMANDS, cuvler
from cuvler.commands.method_options import MethodCommand
from cuvler.pseudo_masks.methods import method_names


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


def every_command():
    """Yield (name, context) of every command, with the settings of each method as options."""
    for name in COMMANDS:
        command = cuvler.get_command(click.Context(cuvler), name)
        context = click.Context(command, info_name=name)
        if isinstance(command, click.Group):
            for part in command.commands.values():
                yield f"{name} {part.name}", click.Context(part, info_name=part.name)
        elif isinstance(command, MethodCommand):
            for method in method_names():
                context = click.Context(command, info_name=name)
                context.meta[MethodCommand.__module__] = method
                yield f"{name} --method {method}", context
        else:
            yield name, context


# What is read: an option that is repeated with names is of the same type as one without.
_READ = {"Path": "path", "named_path": "path", "named_text": "text", "integer": "integer range"}


def test_every_option_and_argument_is_explained():
    for name, context in every_command():
        for parameter in context.command.get_params(context):
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name}: {parameter.opts}"
            else:
                words = set(re.findall(r"\b[A-Z_]+\b", parameter.make_metavar(context)))
                explained = re.findall(r"\b[A-Z_]+\b", context.command.help)
                assert words
                assert words <= {*explained}, f"{name}: {parameter.name}"


def test_an_option_is_of_one_type_in_every_command():
    types = {}
    for name, context in every_command():
        for parameter in context.command.get_params(context):
            if isinstance(parameter, click.Option):
                read = _READ.get(parameter.type.name, parameter.type.name)
                for flag in parameter.opts:
                    types.setdefault(flag, {}).setdefault(read, []).append(name)
    assert {flag: found for flag, found in types.items() if len(found) > 1} == {}
