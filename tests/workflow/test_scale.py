"""Planning a run on ImageNet is fast and opens no images."""

import os
import re
import resource
import subprocess
import time

import pytest

from cuvler.listing import INITIAL_STATE, listed_state

pytestmark = pytest.mark.workflow

# Python runs this at startup: it records each file and folder that is opened or listed.
HOOK = """
import os, sys

def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and arguments:
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
        if "/imagenet/" in os.path.abspath(path):
            with open(os.environ["SEEN"], "a") as seen:
                seen.write(event + " " + path + "\\n")

sys.addaudithook(hook)
"""


@pytest.fixture
def seen(tmp_path):
    """The file that the hook writes; environment() turns the hook on."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(HOOK)
    return tmp_path / "seen"


def environment(seen):
    path = [os.fspath(seen.parent / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "SEEN": os.fspath(seen)}


def plan(workplace, *arguments, **environment):
    """Dry-run; return its CPU time in seconds and its output."""
    command = workplace.command("-n", *arguments)
    command["env"] |= environment
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(**command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stdout[-5000:]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, result.stdout


def test_the_plan_for_imagenet_takes_seconds(workplace):
    seconds, output = plan(workplace, "all")
    assert re.search(r"^eigenvectors +1920$", output, re.MULTILINE)
    # CPU time, which depends little on other processes.
    assert seconds < 20


def test_the_plan_looks_at_no_image(workplace, seen):
    folder = workplace.folder / "datasets/imagenet/train/n01440764"
    folder.mkdir(parents=True)
    (folder / "n01440764_1.JPEG").touch()
    target = "results/images/imagenet_train.parquet"
    plan(workplace, target, **environment(seen))
    assert not seen.exists(), seen.read_text()
    # The hook sees what it should: the listing does look at the images' folders.
    words = ["cuvler", "images", "--dataset", "x"]
    words += ["--image-root", folder.parent, "--output", "x.parquet"]
    command = workplace.command() | {"args": words}
    command["env"] |= environment(seen)
    subprocess.run(**command, check=True)
    assert os.fspath(folder) in seen.read_text()


def test_the_plan_looks_at_no_image_but_at_the_times_of_folders(workplace, seen):
    root = workplace.folder / "datasets/imagenet/train"
    for number in range(1000):
        folder = root / f"n{number:08d}"
        folder.mkdir(parents=True)
        (folder / f"{folder.name}_1.JPEG").touch()
        os.utime(folder, (1, 1))
    os.utime(root, (1, 1))
    target = "results/images/imagenet_train.parquet"
    workplace.snakemake(target)
    _, output = plan(workplace, target, **environment(seen))
    assert "Nothing to be done" in output
    assert not seen.exists(), seen.read_text()
    assert listed_state(workplace.folder / target, root) == INITIAL_STATE  # imports pandas
    start = time.process_time()
    listed_state(workplace.folder / target, root)
    assert time.process_time() - start < 0.5
    (root / "n00000007/n00000007_2.JPEG").touch()
    _, output = plan(workplace, target, **environment(seen))
    assert "Params have changed" in output


def test_the_plan_of_hours_has_snakemakes_jobs(workplace):
    settings = workplace.configure(datasets={"demo_train": {"images": "demo/train/images"}})
    _, output = plan(workplace, "all", *settings)
    total = int(re.search(r"^total +(\d+)$", output, re.MULTILINE)[1])
    words = ["cuvler", "plan", "--images", "320", "--images", "demo_val=80"]
    words += ["--rate", "detector=4", "--rate", "predictions=2"]
    for name in settings[1:]:
        words += ["--configfile", name]
    command = workplace.command() | {"args": words, "stderr": None}
    result = subprocess.run(**command, check=True)
    lines = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    # `all` itself is a job to Snakemake.
    assert int(lines["all"].split()[1]) == total - 1
    assert "demo_train 320, demo_val 80" in result.stdout
