"""Dependencies: those declared are those imported, and the core works without the extras."""

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cuvler.extras import EXTRAS, MissingExtraError, require_extra

from ..conftest import REPOSITORY

PHOTO = REPOSITORY / "tests/reference/votecut/000000000001.jpg"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements):
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


CORE = names(PROJECT["dependencies"])
OPTIONAL = {extra: names(wanted) for extra, wanted in PROJECT["optional-dependencies"].items()}
DISTRIBUTIONS = {
    module: {canonicalize_name(name) for name in found}
    for module, found in packages_distributions().items()
}


def imported(folder):
    """The modules that the Python files of a folder import, without the standard library's."""
    modules = set()
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import():
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                case ast.ImportFrom(level=0):
                    modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - {"cuvler", "demo_scenes"}


def distributions(modules):
    """What the modules are installed by; a module may be part of several distributions."""
    return set().union(*(DISTRIBUTIONS[module] for module in modules))


def installed_by(names):
    """The distributions that pip installs for some of them: they and all that they require."""
    found, waiting = set(), [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for requirement in map(Requirement, requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, extra) for extra in ("", *requirement.extras)]
    return {name for name, _ in found}


class TestDeclarations:
    def test_what_is_imported_is_declared_and_what_is_declared_is_imported(self):
        optional = set().union(*EXTRAS.values())
        assert distributions(imported("cuvler") - optional) == CORE
        # Snakemake is a program here; only the workflow imports it.
        assert optional - {"snakemake"} <= imported("cuvler")

    def test_the_demos_scenes_need_the_core_alone(self):
        assert distributions(imported("demo_scenes")) <= CORE

    @pytest.mark.parametrize("extra", OPTIONAL)
    def test_an_extra_is_what_is_imported_of_it(self, extra):
        declared = OPTIONAL[extra]
        if extra == "workflow":  # Snakemake loads the plugin that a profile names.
            profile = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
            declared = declared - {f"snakemake-executor-plugin-{profile['executor']}"}
        assert distributions(EXTRAS[extra]) == declared

    def test_the_core_is_light(self):
        beside_torch = installed_by(CORE) - installed_by({"torch"})
        assert len(beside_torch) < 50, sorted(beside_torch)
        heavy = {"snakemake", "detectron2", "matplotlib", "tensorboard", "pydensecrf2", "requests"}
        assert not heavy & beside_torch


def run_in_a_bare_environment(script, *arguments, cwd):
    """Run Python in which nothing can be imported but the core and what it requires."""
    there = installed_by(CORE)
    missing = [name for name, by in DISTRIBUTIONS.items() if not by & (there | {"cuvler"})]
    blocked = f"import sys\nsys.modules |= dict.fromkeys({missing!r})\n"
    command = [sys.executable, "-c", blocked + script, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


DISCOVER = """
import cuvler
from click.testing import CliRunner
from cuvler.cli import cuvler as command
from cuvler.images import open_image

masks = cuvler.discover(open_image(sys.argv[1]), backbones=["pixels_p16"])
assert masks and masks[0].mask.any()
arguments = ["discover", sys.argv[1], "--backbone", "pixels_p16", "--output", "found"]
result = CliRunner().invoke(command, arguments, catch_exceptions=False)
assert result.exit_code == 0, result.output
"""

COMMANDS = """
import json
from click.testing import CliRunner
from cuvler.cli import COMMANDS, cuvler
from cuvler.extras import MissingExtraError

for name in COMMANDS:
    result = CliRunner().invoke(cuvler, [name, "--help"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
messages = []
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(cuvler, arguments)
    assert isinstance(result.exception, MissingExtraError), (arguments, result)
    messages.append(str(result.exception))
print(json.dumps(messages))
"""


class TestBareEnvironment:
    def test_discover_works(self, tmp_path):
        run_in_a_bare_environment(DISCOVER, PHOTO, cwd=tmp_path)
        assert len(list((tmp_path / "found").glob("*.png"))) > 1

    def test_commands_name_the_extra_they_need(self, tmp_path):
        (tmp_path / "images").mkdir()
        truth = {
            "images": [{"id": 1, "file_name": "1.jpg", "width": 9, "height": 9}],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25}
            ],
        }
        found = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}]
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        (tmp_path / "found.json").write_text(json.dumps(found))
        training = ["--annotations", "truth.json", "--image-root", "images", "--output", "trained"]
        predicting = [
            "--listing",
            "x.parquet",
            "--image-root",
            "images",
            "--output",
            "predicted.json",
        ]
        against = ["--ground-truth", "truth.json"]
        cases = [
            ("workflow", "plan"),
            ("workflow", "status"),
            ("detector", "detector", "--detector-config", "demo", *training),
            ("detector", "predictions", "--detector", "images", *predicting),
            ("detector", "predict", str(PHOTO), "--detector", "x.pth", "--output", "drawn"),
            ("evaluation", "evaluation", *against, "--results", "found.json", "--output", "x.json"),
            ("report", "compare", "found.json", "found.json", *against),
            ("report", "report", "--output", "report.html"),
            ("download", "download", "http://localhost/x"),
            ("download", "download", "gdrive:1aB", "--output", "x"),
            ("download", "weights", "--backbone", "dino_resnet50", "--output", "x.safetensors"),
        ]
        arguments = json.dumps([arguments for _, *arguments in cases])
        messages = json.loads(run_in_a_bare_environment(COMMANDS, arguments, cwd=tmp_path))
        for (extra, *_), message in zip(cases, messages, strict=True):
            assert message.endswith(f"'cuvler[{extra}]'"), message


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_package_is_named_with_its_extra(extra, monkeypatch):
    require_extra(extra)
    for module in EXTRAS[extra]:
        with monkeypatch.context() as context:
            context.setitem(sys.modules, module, None)
            with pytest.raises(MissingExtraError, match=rf"{module}.*cuvler\[{extra}\]"):
                require_extra(extra)
