"""The environments for conda have the packages of requirements.lock, and nothing beside them."""

import re
import stat
import tomllib

import pytest
import yaml

from ..conftest import REPOSITORY

ENVS = REPOSITORY / "workflow/envs"
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(ENVS.glob("*.yaml")), ids=lambda path: path.stem)
def test_python_is_that_of_the_lock_and_packages_come_from_it(path):
    env = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert env["dependencies"][1:] == ["pip"], "packages belong into requirements.lock"
    version = re.search(r"--python-version (\S+)", LOCK)[1]
    assert env["dependencies"][0] == f"python={version}"
    # Snakemake runs this beside the environment; every package must match a hash of the lock.
    script = path.with_suffix(".post-deploy.sh")
    commands = [line for line in script.read_text().splitlines() if line.startswith("python")]
    assert commands[0] == "python -m pip install --require-hashes --requirement requirements.lock"
    assert all("--no-deps" in command for command in commands[1:])
    assert script.stat().st_mode & stat.S_IRUSR


def test_the_lock_has_all_that_is_needed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["detector"]]
    names = {re.match(r"[A-Za-z0-9_-]+", requirement)[0].lower() for requirement in wanted}
    pinned = set(re.findall(r"^([a-z0-9_-]+)==", LOCK, re.MULTILINE))
    # The wheel of detectron2 is made here.
    assert {name.replace("_", "-") for name in names} - pinned == {"detectron2"}


def test_every_rule_that_runs_a_command_has_an_environment():
    envs = {path.name for path in ENVS.glob("*.yaml")}
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^(?=rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            used = re.findall(r'"\.\./envs/([a-z_]+\.yaml)"', rule)
            assert used, rule.splitlines()[0]
            assert set(used) <= envs
