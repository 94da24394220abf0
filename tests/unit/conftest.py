"""What tests of files and folders, and of models, need."""

import contextlib
import os
import resource
import tempfile
from pathlib import Path

import pytest

from .browser import CHROMIUM, Browser


@pytest.fixture(scope="module")
def one_thread():
    """torch on one thread: small models are slower, and no more exact, on several."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def odd_names():
    """File names that shells, URLs and line-based formats get wrong."""
    return [
        "with space.jpg",
        "qu'ote\".jpg",
        "new\nline.jpg",
        "-dash.jpg",
        "ünï日本.jpg",
        "$(x).jpg",
    ]


@pytest.fixture
def public_folder():
    """A folder that everyone may enter; those of tmp_path are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def as_plain_user():
    """A context: root gives up its right to read and write everything."""

    @contextlib.contextmanager
    def context():
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)

    return context


@pytest.fixture
def full_disk():
    """A context: no file can grow over 100 kB, as on a file system that is full."""

    @contextlib.contextmanager
    def context():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return context


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH (Debian: apt-get install chromium)")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
