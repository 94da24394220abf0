import re
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "cluster.sh"

# This cluster has no accounts. Snakemake queries its accounting database with sacct.
WITH_ACCOUNTING = [
    *("--profile", "profiles/slurm"),
    "--slurm-no-account",
    *("--slurm-init-seconds-before-status-checks", "5"),
]
# As on a cluster without an accounting database.
WITHOUT_ACCOUNTING = [*WITH_ACCOUNTING, "--slurm-status-command", "squeue"]


class Cluster:
    """A controller, a CPU node and a GPU node, as reported by SLURM."""

    flags = WITHOUT_ACCOUNTING
    flags_with_accounting = WITH_ACCOUNTING

    def __init__(self, folder):
        self.folder = folder

    def run(self, action, *arguments):
        subprocess.run([SCRIPT, action, self.folder, *arguments], check=True)

    def jobs(self):
        """Return all jobs the controller remembers, oldest first, with rule and wildcards."""
        jobs = []
        for line in command("scontrol", "show", "job", "--oneliner").splitlines():
            if not line.startswith("JobId="):
                continue  # No jobs in the system
            job = dict(re.findall(r"(\S+?)=(\S*)", line))
            match = re.match(r"rule_(\w+?)(_wildcards_(.*))?$", job.get("Comment", ""))
            # Groups of jobs have a different comment.
            rule, wildcards = (match[1], match[3]) if match else ("", None)
            jobs.append(job | {"Rule": rule, "Wildcards": wildcards})
        return sorted(jobs, key=lambda job: int(job["JobId"]))

    def since(self, mark):
        """Return the jobs after the job ``mark``."""
        return [job for job in self.jobs() if int(job["JobId"]) > mark]

    def mark(self):
        """Return the id of the last job."""
        return max((int(job["JobId"]) for job in self.jobs()), default=0)

    def wait_for_job(self, mark, rule, state="RUNNING", run=None):
        """Wait until a job of a rule is in a state, and return it."""

        def look():
            assert run is None or run.poll() is None, run.stdout.read()[-5000:]
            found = [j for j in self.since(mark) if (j["Rule"], j["JobState"]) == (rule, state)]
            return found[0] if found else None

        return self.wait_until(look)

    def wait_until(self, look, seconds=300):
        """Poll until the answer is true, and return it."""
        deadline = time.monotonic() + seconds
        while not (answer := look()):
            assert time.monotonic() < deadline, command("scontrol", "show", "job", "--oneliner")
            time.sleep(0.1)
        return answer

    def nodes(self):
        """Return the nodes' states, by name."""
        lines = command("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

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
def small(tiny):
    """Settings of a run of five jobs up to the annotations."""
    tiny["datasets"]["demo_train"]["shards"] = 2
    tiny["pseudo_masks"]["votecut"]["backbones"] = ["pixels_p16"]
    return tiny
