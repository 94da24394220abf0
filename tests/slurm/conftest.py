import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "cluster.sh"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A controller, a CPU node and a GPU node, for as long as the tests run."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder], check=True)
    yield folder
    subprocess.run([SCRIPT, "stop", folder], check=True)
