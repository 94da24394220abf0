"""The profile for SLURM, as Snakemake reads it, and jobs on several nodes."""

import re

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


FINE_TUNED = "results/fine_tuning/detectors/cuvler_round1_10percent/model_final.pth"


@pytest.fixture
def write(workplace):
    """A function that writes a small config with a number of nodes; returns the flags for it."""

    def write(nodes):
        datasets = {name: {"shards": 1} for name in ("imagenet_train", "coco_train")}
        settings = {"detector": {"nodes": nodes}, "datasets": datasets}
        (workplace.folder / "own.yaml").write_text(yaml.safe_dump(settings))
        return ["--configfile", "own.yaml"]

    return write


@pytest.mark.parametrize("nodes", [1, 2])
def test_every_detector_is_trained_on_the_nodes(workplace, write, nodes):
    plan = workplace.snakemake("--profile", "profiles/slurm", "-n", "-p", FINE_TUNED, *write(nodes))
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*Shell command: (.*)$", plan, re.M)
    resources = re.findall(r"^    resources: (.*)$", plan, re.M)
    assert len(resources) == len(jobs)
    trained = {"detector": 2, "fine_tuning": 1}
    for rule, command in jobs:
        several = nodes > 1 and rule in trained
        starts = "srun --nodes=2 --ntasks-per-node=1 " if several else "cuvler "
        assert command.strip().startswith(starts), rule
    asked = [line for line in resources if "nodes=2, tasks=2, tasks_per_gpu=0, mpi=srun" in line]
    assert len(asked) == (sum(trained.values()) if nodes > 1 else 0)
    assert all("gres=gpu:8" in line and "cpus_per_task=48" in line for line in asked)
    assert sum(rule in trained for rule, _ in jobs) == 3


def test_only_slurm_trains_on_several_nodes(workplace, write):
    annotations = "results/annotations/imagenet_train/votecut.json"
    target = "results/detectors/cuvler_round0/model_final.pth"
    for path in (annotations, "resources/weights/dino_resnet50.safetensors"):
        (workplace.folder / path).parent.mkdir(parents=True)
        (workplace.folder / path).touch()
    output = workplace.snakemake(target, *write(2), status=1)
    assert re.search(r"detector\.nodes: 2, but only SLURM .*--profile profiles/slurm", output)
    assert "cuvler detector" not in output
    # A detector that is there already needs no nodes.
    (workplace.folder / target).parent.mkdir(parents=True)
    (workplace.folder / target).touch()
    assert "Nothing to be done" in workplace.snakemake(target, *write(2))
