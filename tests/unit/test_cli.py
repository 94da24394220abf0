import ast
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from cuvler import errors
from cuvler.cli import COMMANDS, cuvler
from cuvler.commands import options
from cuvler.commands.method_options import MethodCommand
from cuvler.errors import DataError
from cuvler.listing import write_listing
from cuvler.pseudo_masks.methods import method_names

PACKAGE = Path(errors.__file__).parent


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


def test_the_commands_help_is_quick():
    script = f"""
import sys
from click.testing import CliRunner
from cuvler.cli import cuvler
for name in {[*COMMANDS]}:
    assert CliRunner().invoke(cuvler, [name, "--help"]).exit_code == 0, name
    heavy = {{"torch", "timm", "pandas", "zarr", "scipy.ndimage", "numba", "detectron2"}}
    print(name, *sorted(heavy & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.split() == [*COMMANDS], result.stdout + result.stderr


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


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_option_is_a_usage_error(name):
    command = cuvler.get_command(click.Context(cuvler), name)
    required = [parameter for parameter in command.params if parameter.required]
    if required:
        assert CliRunner().invoke(command, []).exit_code == 2
    for parameter in required:
        result = CliRunner().invoke(click.Command("alone", params=[parameter]), [])
        assert result.exit_code == 2, parameter.name


def test_an_unknown_command_is_a_usage_error():
    assert run("votecut").returncode == 2


def test_a_misspelt_command_gets_a_suggestion():
    result = CliRunner().invoke(cuvler, ["discovr", "photo.jpg"])
    assert result.exit_code == 2
    assert "'discovr'. Did you mean discover?" in result.output


@pytest.mark.parametrize(
    ("words", "files", "arguments"),
    [
        ("--configfile a.yaml b.yml all", ["a.yaml", "b.yml"], ["all"]),
        ("--configfile a.yaml --configfile b.yml", ["a.yaml", "b.yml"], []),
        ("all --configfiles a b.yaml --flag c.yaml", ["a", "b.yaml"], ["all", "c.yaml"]),
        ("--configfile a.yaml results/x.json c.yaml", ["a.yaml"], ["results/x.json", "c.yaml"]),
    ],
)
def test_configfile_takes_several_files_as_snakemakes_does(words, files, arguments):
    found = {}

    @click.command(cls=options.ConfigFilesCommand)
    @options.configfiles()
    @click.option("--flag", is_flag=True)
    @click.argument("targets", nargs=-1)
    def command(**parameters):
        found.update(parameters)

    result = CliRunner().invoke(command, words.split())
    assert result.exit_code == 0, result.output
    assert (list(map(str, found["configfiles"])), list(found["targets"])) == (files, arguments)


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


def test_the_library_names_no_option():
    """Errors name a parameter; the command line adds the option, which must be one."""
    flags = {
        flag
        for _, context in every_command()
        for parameter in context.command.get_params(context)
        for flag in parameter.opts
    }
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "commands" or path.name == "cli.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")):
                continue
            named = set(re.findall(r"--[a-z][a-z0-9-]*", ast.unparse(node)))
            assert not named & flags, f"{path}:{node.lineno}"
            about = [word.value.value for word in node.keywords if word.arg == "parameter"]
            assert all(f"--{name.replace('_', '-')}" in flags for name in about), path


def test_the_command_line_adds_the_option(tmp_path):
    listing = tmp_path / "listing.parquet"
    write_listing(pd.DataFrame({"image_id": [1], "file_name": ["1.png"], "shard": [0]}), listing)
    files = ["--listing", listing, "--image-root", tmp_path, "--output", tmp_path / "x.zarr.zip"]
    result = run("eigenvectors", *map(str, files), "--backbone", "dino_s16", "--shard", "0")
    assert result.returncode == 1
    assert result.stderr.strip().endswith("(--weights)")


def test_an_error_keeps_its_parameter_between_processes():
    error = pickle.loads(pickle.dumps(DataError("too many", parameter="max_failed")))
    assert (str(error), error.parameter) == ("too many", "max_failed")
