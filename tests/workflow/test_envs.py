"""The locks, and conda environments and container, which install requirements.lock alone."""

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

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


CONTAINER = REPOSITORY / "container"
# Stands for Apptainer: writes its words to a file, and runs the command without a container.
APPTAINER = """#!/bin/bash
if [ "$1" = --version ]; then echo apptainer version 1.3.4; exit; fi
echo "$*" >> calls.txt
while [ "$1" != bash ]; do shift; done
exec "$@"
"""


def copied_by_docker():
    text = (CONTAINER / "Dockerfile").read_text()
    return re.findall(r"^COPY (\S+) (\S+)$", text, re.MULTILINE)


def test_docker_and_apptainer_run_the_same_steps_on_the_same_files():
    recipe = (CONTAINER / "Dockerfile").read_text()
    definition = (CONTAINER / "cuvler.def").read_text()
    assert (
        re.search(r"^FROM (\S+)", recipe, re.MULTILINE)[1]
        == re.search(r"^From: (\S+)", definition, re.MULTILINE)[1]
    )
    files = re.search(r"%files\n(.*?)\n\n", definition, re.DOTALL)[1]
    assert [tuple(line.split()) for line in files.splitlines()] == copied_by_docker()
    steps = "cd /opt/source && bash container/install.sh"
    assert re.search(r"^RUN (.+)", recipe, re.MULTILINE)[1] == steps
    assert re.search(r"%post\n *(.+)\n\n", definition)[1] == steps
    assert re.search(r"^ENV (PATH=.+)", recipe, re.MULTILINE)[1] in definition


def test_the_container_has_the_lock_and_all_files_of_the_package():
    copied = {source for source, _ in copied_by_docker()}
    assert all(target == f"/opt/source/{source}" for source, target in copied_by_docker())
    assert all((REPOSITORY / source).exists() for source in copied)
    script = (CONTAINER / "install.sh").read_text()
    # Its Python packages are installed by the environment's script, which is tested above.
    (run,) = re.findall(r"^bash (\S+)", script, re.MULTILINE)
    assert not re.search(r"pip3? install|uv pip", script)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = {run, "requirements.lock", "pyproject.toml", "cuvler", "packaging/detectron2"}
    needed |= {project["readme"], *project["license-files"], "container/install.sh"}
    parents = {file: {file, *map(str, Path(file).parents)} for file in needed}
    assert [file for file, places in parents.items() if not places & copied] == []
    # Debian 12's Python is the one that the lock is made for.
    assert "FROM debian:bookworm" in (CONTAINER / "Dockerfile").read_text()
    assert "--python-version 3.11 " in LOCK


@pytest.mark.slow
@pytest.mark.workflow
def test_jobs_run_in_the_container_if_asked(workplace, scenes):
    """One job of the demo, with a program in place of Apptainer."""
    (workplace.folder / "demo").symlink_to(scenes)
    (workplace.folder / "apptainer").write_text(APPTAINER)
    (workplace.folder / "apptainer").chmod(0o755)
    calls = workplace.folder / "calls.txt"

    def snakemake(*options, **settings):
        target = "results/demo/images/demo_train.parquet"
        command = workplace.command(target, *options, *workplace.configure(**settings))
        command["env"]["PATH"] += f"{os.pathsep}{workplace.folder}"
        result = subprocess.run(**command)
        return result.returncode, result.stdout

    asked = ("--software-deployment-method", "apptainer")
    status, output = snakemake(*asked)
    assert status == 1
    assert "container: cuvler.sif: no such file; build it" in output
    (workplace.folder / "cuvler.sif").touch()
    status, output = snakemake(*asked, detector={"nodes": 2})
    assert status == 1
    assert "detector.nodes: 2: srun" in output
    status, output = snakemake(*asked)
    assert status == 0, output
    assert re.search(r"exec --home .* cuvler\.sif bash -c .*cuvler images ", calls.read_text())
    calls.unlink()
    assert snakemake("--forceall")[0] == 0
    assert not calls.exists()
