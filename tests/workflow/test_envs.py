"""The locks, and the conda environments, which install requirements.lock and nothing else."""

import re
import stat
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..conftest import REPOSITORY

ENVS = REPOSITORY / "workflow/envs"
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
DEV_LOCK = (REPOSITORY / "requirements-dev.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(ENVS.glob("*.yaml")), ids=lambda path: path.stem)
def test_python_is_that_of_the_lock_and_packages_come_from_it(path):
    env = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert env["dependencies"][1:] == ["pip"], "packages belong into requirements.lock"
    version = re.search(r"--python-version (\S+)", LOCK)[1]
    assert env["dependencies"][0] == f"python={version}"
    # Run by Snakemake after the environment is created; each package must match a locked hash.
    script = path.with_suffix(".post-deploy.sh")
    commands = [line for line in script.read_text().splitlines() if line.startswith("python")]
    assert commands[0] == "python -m pip install --require-hashes --requirement requirements.lock"
    assert all("--no-deps" in command for command in commands[1:])
    assert script.stat().st_mode & stat.S_IRUSR


def pins(lock):
    """The pinned versions by name; several where they depend on the version of Python."""
    found = {}
    for name, version in re.findall(r"^([a-z0-9_.-]+)==(\S+)", lock, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def names(requirements):
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def test_the_locks_have_all_that_is_needed_and_agree():
    content = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project, groups = content["project"], content["dependency-groups"]
    runtime, tools = pins(LOCK), pins(DEV_LOCK)
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    # The wheel of detectron2 is made here.
    assert names([*wanted, *groups["setup"]]) - runtime.keys() == {"detectron2"}
    assert names(groups["dev"]) <= tools.keys()
    assert not names(groups["dev"]) & runtime.keys()
    shared = runtime.keys() & tools.keys()
    assert {name: tools[name] for name in shared} == {name: runtime[name] for name in shared}


@pytest.mark.parametrize("lock", [LOCK, DEV_LOCK], ids=["runtime", "dev"])
def test_locks_have_hashes_and_no_address(lock):
    for block in re.split(r"^(?=\S+==)", lock, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block
    assert "://" not in lock


def test_every_rule_that_runs_a_command_has_an_environment():
    envs = {path.name for path in ENVS.glob("*.yaml")}
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^(?=rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            used = re.findall(r'"\.\./envs/([a-z_]+\.yaml)"', rule)
            assert used, rule.splitlines()[0]
            assert set(used) <= envs
