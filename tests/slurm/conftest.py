import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parent / "cluster.sh"
SLURM_CONF = Path("/etc/slurm/slurm.conf")

# This cluster has no accounts, and jobs take seconds.
FLAGS = [
    *("--profile", "profiles/slurm"),
    "--slurm-no-account",
    *("--slurm-init-seconds-before-status-checks", "2"),
]


class Cluster:
    """A controller, a CPU node and a GPU node, as reported by SLURM."""

    flags = FLAGS

    def __init__(self, folder):
        self.folder = folder

    def run(self, action, *arguments):
        subprocess.run([SCRIPT, action, self.folder, *arguments], check=True)

    def jobs(self, folder):
        """Return the jobs of Snakemake in a folder, oldest first, with rule and wildcards."""
        jobs = []
        for line in command("scontrol", "show", "job", "--oneliner").splitlines():
            if not line.startswith("JobId="):
                continue  # No jobs in the system
            job = dict(re.findall(r"(\S+?)=(\S*)", line))
            if job["WorkDir"] != str(folder):
                continue
            match = re.match(r"rule_(\w+?)(_wildcards_(.*))?$", job.get("Comment", ""))
            # Groups of jobs have a different comment.
            rule, wildcards = (match[1], match[3]) if match else ("", None)
            jobs.append(job | {"Rule": rule, "Wildcards": wildcards})
        return sorted(jobs, key=lambda job: int(job["JobId"]))

    def nodes(self):
        """Return the nodes' states, by name."""
        lines = command("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def update(self, *words):
        """Change a node, a partition or a job."""
        command("scontrol", "update", *words)

    def configure(self, key, value):
        """Change a setting of the controller."""
        text = re.sub(rf"^{key}=.*$", f"{key}={value}", SLURM_CONF.read_text(), flags=re.MULTILINE)
        SLURM_CONF.write_text(text)
        command("scontrol", "reconfigure")

    def processes(self, job, name):
        """Return the ids of the job's processes with a word in their command line."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"SLURM_JOB_ID=" + job["JobId"].encode() in environment and name.encode() in words:
                found.append(int(folder.name))
        return found


class Run:
    """Snakemake in a workplace on the cluster."""

    def __init__(self, cluster, workplace, settings):
        self.cluster = cluster
        self.workplace = workplace
        self.folder = workplace.folder
        self.settings = workplace.configure(**settings)
        self.log = self.folder / "snakemake.out"
        self.process = None
        self.seconds = 0.0

    def change_profile(self, change):
        path = self.folder / "profiles/slurm/config.yaml"
        profile = yaml.safe_load(path.read_text())
        change(profile)
        path.write_text(yaml.safe_dump(profile))

    def start(self, *words, path=None):
        """Start Snakemake, with a folder that precedes the others on the path."""
        command = self.workplace.command(*words, *self.cluster.flags, *self.settings)
        if path:
            command["env"]["PATH"] = f"{path}{os.pathsep}{command['env']['PATH']}"
        self.started = time.monotonic()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                **command | {"stdout": log},
                start_new_session=True,
                # Shells let what they start in the background ignore SIGINT, so these tests too.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def finish(self, status=0):
        self.wait_until(lambda: self.process.poll() is not None, seconds=480, alive=False)
        self.seconds += time.monotonic() - self.started
        assert self.process.returncode == status, self.output[-5000:]

    def kill(self, number=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, number)
            self.process.wait()

    @property
    def output(self):
        return self.log.read_text()

    def jobs(self, rule=None):
        jobs = self.cluster.jobs(self.folder)
        return [job for job in jobs if rule in (None, job["Rule"])]

    def states(self, rule):
        return Counter(job["JobState"] for job in self.jobs(rule))

    def wait_for_job(self, rule, state="RUNNING"):
        """Wait until a job of a rule is in a state, and return it."""

        def look():
            return next((job for job in self.jobs(rule) if job["JobState"] == state), None)

        return self.wait_until(look)

    def wait_until(self, look, seconds=300, alive=True):
        """Poll until the answer is true, and return it."""
        deadline = time.monotonic() + seconds
        while not (answer := look()):
            assert not alive or self.process.poll() is None, self.output[-5000:]
            assert time.monotonic() < deadline, (self.output[-3000:], self.jobs())
            time.sleep(0.2)
        return answer


def command(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The cluster, started once per session."""
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.run("start")
        yield cluster
    finally:
        cluster.run("stop")


@pytest.fixture
def new_run(cluster, new_workplace, tmp_path):
    """A function: name and settings -> a run; what is left of them is ended after the test."""
    runs = []

    def new(name, settings):
        runs.append(Run(cluster, new_workplace(tmp_path / name), settings))
        return runs[-1]

    yield new
    for run in runs:
        run.kill()
        for job in run.jobs():
            subprocess.run(["scancel", job["JobId"]], check=True)


@pytest.fixture
def small(tiny):
    """Settings of a run of five jobs up to the annotations."""
    tiny["datasets"]["demo_train"]["shards"] = 2
    tiny["pseudo_masks"]["votecut"]["backbones"] = ["pixels_p16"]
    return tiny


ROWS = pytest.StashKey()


@pytest.fixture(scope="session")
def table(request):
    """The table of faults, printed at the end: rows of cells."""
    return request.config.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    rows = [("fault", "mode", "survived", "bytes equal", "lost attempts", "seconds"), *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    terminalreporter.section("faults")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
