"""The profile for SLURM, as Snakemake reads it."""

import pytest
import yaml
from snakemake.cli import parse_args
from snakemake.iocontainers import Wildcards
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

pytestmark = pytest.mark.workflow

ATTEMPTS = range(1, 10)


@pytest.fixture
def read(workplace, monkeypatch):
    """A function that changes the profile's variables and returns Snakemake's arguments."""
    monkeypatch.chdir(workplace.folder)

    def read(**variables):
        path = workplace.folder / "profiles/slurm/config.yaml"
        profile = yaml.safe_load(path.read_text())
        profile["__variables__"].update(variables)
        path.write_text(yaml.safe_dump(profile))
        return parse_args(["--profile", "profiles/slurm"])[1]

    return read


def requests(arguments, name):
    """Return what each rule asks for in each attempt."""
    found = {"default": arguments.default_resources[name]}
    for rule, resources in arguments.set_resources.items():
        found[rule] = dict(resources.items()).get(name, found["default"])
    return {rule: [evaluate(resource, n) for n in ATTEMPTS] for rule, resource in found.items()}


def evaluate(resource, attempt):
    wildcards = Wildcards()
    words = {"input": [], "threads": 1, "rulename": "", "async_run": None}
    return resource.evaluate(wildcards, attempt=attempt, **words).value


def test_the_settings_reach_snakemake_and_the_plugin(read):
    arguments = read()
    assert arguments.executor == "slurm"
    assert arguments.retries == 3
    assert arguments.max_status_checks_per_second == 0.2
    plugin = ExecutorPluginRegistry().get_plugin("slurm").get_settings(arguments)
    assert plugin.status_attempts == 1000
    assert plugin.status_command == "squeue"
    assert plugin.requeue
    # The plugin uses squeue where MinJobAge is at least three times this: 180 s, its longest pause.
    assert plugin.init_seconds_before_status_checks == 60


@pytest.mark.parametrize(("minutes", "megabytes"), [(2880, 200_000), (90, 16_000), (10_000, 10**6)])
def test_no_attempt_asks_for_more_than_the_limits(read, minutes, megabytes):
    arguments = read(max_runtime=minutes, max_mem_mb=megabytes)
    for name, limit in ("runtime", minutes), ("mem_mb", megabytes):
        asked = requests(arguments, name)
        assert asked.keys() >= {"default", "detector", "pseudo_masks", "fine_tuning"}
        assert max(max(values) for values in asked.values()) <= limit
        # A later attempt asks for as much as an earlier one, or more.
        assert all(values == sorted(values) for values in asked.values())
    assert requests(arguments, "runtime")["detector"] == [minutes] * len(ATTEMPTS)


def test_a_job_that_ran_out_gets_more(read):
    arguments = read()
    assert requests(arguments, "runtime")["default"][:3] == [240, 480, 720]
    assert requests(arguments, "mem_mb")["pseudo_masks"][:3] == [32000, 64000, 96000]
