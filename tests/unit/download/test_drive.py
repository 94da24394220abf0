import inspect
import sys
import types

import pytest

from cuvler.download import download
from cuvler.download.drive import drive_id
from cuvler.errors import DataError
from cuvler.extras import MissingExtraError


@pytest.mark.parametrize(
    "source",
    [
        "gdrive:1aB-c_9",
        "https://drive.google.com/file/d/1aB-c_9/view?usp=sharing",
        "https://drive.google.com/open?id=1aB-c_9",
        "https://drive.google.com/uc?export=download&id=1aB-c_9&confirm=t",
        "https://drive.usercontent.google.com/download?id=1aB-c_9&export=download",
    ],
)
def test_ids_of_links(source):
    assert drive_id(source) == "1aB-c_9"


@pytest.mark.parametrize(
    "source",
    ["https://drive.google.com/drive/folders/1aB", "https://example.org/file/d/1", "1aB-c_9"],
)
def test_other_addresses_are_no_files_of_google_drive(source):
    assert drive_id(source) is None


class DownloadError(Exception):
    pass


@pytest.fixture
def gdown(monkeypatch):
    """A stand-in for gdown, with its interface; ``content`` is what Google has."""
    module = types.ModuleType("gdown")
    module.exceptions = types.SimpleNamespace(DownloadError=DownloadError)
    module.content = b"weights"
    module.asked = []

    def fetch(*, id, output, resume, retries, timeout):
        module.asked.append((id, resume))
        if isinstance(module.content, Exception):
            raise module.content
        with open(output, "wb") as stream:
            stream.write(module.content)
        return output

    module.download = fetch
    monkeypatch.setitem(sys.modules, "gdown", module)
    return module


def test_gdown_downloads_and_the_file_is_checked_as_any_other(gdown, tmp_path):
    download("gdrive:1aB", tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == b"weights"
    assert (tmp_path / "w.pth.sha256").exists()
    assert gdown.asked == [("1aB", True)]
    with pytest.raises(DataError, match="not the expected 00"):
        download("gdrive:1aB", tmp_path / "v.pth", sha256="00")
    assert not (tmp_path / "v.pth").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (DownloadError("Cannot retrieve the public link"), "Google Drive: Cannot retrieve"),
        (ConnectionError("no route"), "Google Drive: no route"),
    ],
)
def test_what_google_refuses_is_named_with_where_to_put_it(gdown, tmp_path, content, message):
    gdown.content = content
    with pytest.raises(DataError, match=message) as caught:
        download("gdrive:1aB", tmp_path / "w.pth")
    assert str(caught.value).endswith(f"put it at {tmp_path / 'w.pth'}")


def test_without_gdown_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(MissingExtraError, match=r"gdown.*cuvler\[download\]"):
        download("gdrive:1aB", tmp_path / "w.pth")


def test_the_stand_in_has_gdowns_interface(gdown, monkeypatch):
    ours = inspect.signature(gdown.download).parameters
    monkeypatch.delitem(sys.modules, "gdown")
    real = pytest.importorskip("gdown")
    assert ours.keys() <= inspect.signature(real.download).parameters.keys()
    assert issubclass(real.exceptions.DownloadError, Exception)
