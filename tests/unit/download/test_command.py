import io
import re
import zipfile

import pytest
from click.testing import CliRunner

from cuvler.commands.download import command
from cuvler.download import PublishedFile, published, published_files
from cuvler.errors import ConfigError, DataError


def run(*arguments):
    outcome = CliRunner().invoke(command, list(map(str, arguments)))
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome


@pytest.fixture
def known(site, monkeypatch):
    """One published archive, on the server of this machine."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("top/annotations/instances.json", "{}")
    site.content = stream.getvalue()
    file = PublishedFile("coco.zip", site.url, "COCO's annotations", unpack="coco", strip=1)
    monkeypatch.setattr(published, "published_files", lambda: {"coco.zip": file})
    monkeypatch.setattr("cuvler.download.published_files", published.published_files)
    return file


def test_names_are_listed(tmp_path):
    output = run().output
    for name, file in published_files().items():
        digest = file.sha256 or "not published"
        assert f"{name}\n    {file.what}\n    {file.url}\n    sha256 {digest}\n" in output


@pytest.mark.parametrize("source", ["ftp://host/x.zip", "file:///etc/passwd", "x.zip"])
def test_other_sources_are_refused_with_those_that_are_known(source):
    with pytest.raises(ConfigError, match=r"neither a known name, http\(s\)://... nor gdrive:ID"):
        run(source)


def test_published_files_have_names_to_be_saved_under():
    for name, file in published_files().items():
        assert re.fullmatch(r"[\w.-]+", name)
        assert file.url.startswith("https") or "hal.t.u-tokyo.ac.jp" in file.url
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_by_name_into_a_folder(known, site, tmp_path):
    assert run("coco.zip", "--folder", tmp_path / "new").exit_code == 0
    assert (tmp_path / "new/coco.zip").read_bytes() == site.content


def test_known_archives_are_unpacked_to_their_place(known, tmp_path):
    run("coco.zip", "--folder", tmp_path, "--unpack", tmp_path / "datasets")
    assert (tmp_path / "datasets/coco/annotations/instances.json").read_text() == "{}"
    # Once more: the archive is there, its content is put back.
    (tmp_path / "datasets/coco/annotations/instances.json").unlink()
    run("coco.zip", "--folder", tmp_path, "--unpack", tmp_path / "datasets")
    assert (tmp_path / "datasets/coco/annotations/instances.json").exists()


def test_by_address(known, site, tmp_path):
    run(site.url, "--folder", tmp_path, "--unpack", tmp_path / "here")
    assert (tmp_path / "weights.bin").exists()
    assert (tmp_path / "here/top/annotations/instances.json").exists()
    run(site.url, "--output", tmp_path / "own/name.zip")
    assert (tmp_path / "own/name.zip").exists()


def test_a_pin_is_checked(known, site, tmp_path):
    with pytest.raises(DataError, match="not the expected 00"):
        run(site.url, "--folder", tmp_path, "--sha256", "00")


def test_a_name_that_is_not_known_and_an_address_without_a_name(tmp_path):
    with pytest.raises(ConfigError, match=r"cutler_final\.pth: .* mean cutler_\w+_final\.pth\?"):
        run("cutler_final.pth", "--folder", tmp_path)
    with pytest.raises(ConfigError, match="give --output"):
        run("https://drive.google.com/file/d/1aB/view", "--folder", tmp_path)


def test_a_folder_that_cannot_be_made_is_named(known, site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: cannot be created"):
        run(site.url, "--folder", tmp_path / "file")


def test_options_of_one_source(tmp_path):
    outcome = run("a", "b", "--sha256", "00")
    assert outcome.exit_code == 2
    assert "for a single source" in outcome.output
