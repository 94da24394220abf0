import hashlib
import socket

import pytest
import requests

from cuvler.download import download, http
from cuvler.download.errors import FetchError
from cuvler.errors import ConfigError, DataError

# Something comes, then nothing any more.
GIVES_UP = [("break", 65_536)] + [("status", 503)] * 4


def digest(content):
    return hashlib.sha256(content).hexdigest()


def ranges(site):
    return [request.get("Range") for request in site.requests]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "weights.bin"


def assert_whole(path, content):
    assert path.read_bytes() == content
    recorded = path.with_name("weights.bin.sha256").read_text()
    assert recorded == f"{digest(content)}  weights.bin\n"
    assert sorted(p.name for p in path.parent.iterdir()) == ["weights.bin", "weights.bin.sha256"]


def test_a_file_comes_whole_with_its_digest_beside(site, path, content):
    assert download(site.url, path) == digest(content)
    assert_whole(path, content)


def test_a_digest_that_is_not_known_is_said(site, path, content, caplog):
    download(site.url, path, sha256=digest(content))
    assert not caplog.text
    path.unlink()
    download(site.url, path)
    assert "weights.bin: no sha256 is known" in caplog.text
    assert "http" in caplog.text


def test_a_redirect_to_an_address_without_encryption_is_refused():
    response = requests.Response()
    response.status_code, response.url = 200, "http://example.org/weights.bin"
    http._check(response, "http://example.org")
    with pytest.raises(FetchError, match=r"redirects to .* http://example\.org/weights"):
        http._check(response, "https://example.org")


def test_it_goes_on_where_the_connection_broke(site, path, content, pauses):
    site.faults = [("break", 131_072), ("break", 65_536), ("break", 0)]
    download(site.url, path)
    assert_whole(path, content)
    assert ranges(site) == [None, "bytes=131072-", "bytes=196608-", "bytes=196608-"]
    assert all(request.get("If-Range") == '"one"' for request in site.requests[1:])
    assert pauses == [1, 1, 2]  # longer only where nothing was gained


def test_it_goes_on_where_an_earlier_run_gave_up(site, path, content):
    site.faults = list(GIVES_UP)
    with pytest.raises(DataError, match="503 Service Unavailable, after 5 attempts"):
        download(site.url, path)
    assert not path.exists()
    assert path.with_name("weights.bin.part").read_bytes() == content[:65_536]
    download(site.url, path)
    assert_whole(path, content)
    assert ranges(site)[-1] == "bytes=65536-"


def test_a_file_that_has_changed_is_downloaded_again(site, path):
    site.faults = list(GIVES_UP)
    with pytest.raises(DataError):
        download(site.url, path)
    site.content, site.etag = b"another" * 999, '"two"'
    download(site.url, path)
    assert_whole(path, b"another" * 999)


def test_another_address_does_not_go_on_from_it(site, path, content):
    site.faults = list(GIVES_UP)
    with pytest.raises(DataError):
        download(site.url, path)
    download(f"{site.url}?mirror=2", path)
    assert ranges(site)[-1] is None
    assert_whole(path, content)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_the_download_restarts(site, path, content, etag):
    site.etag = etag
    site.faults = [("break", 65_536), ("break", 65_536)]
    download(site.url, path)
    assert ranges(site) == [None, None, None]
    assert_whole(path, content)


def test_a_server_that_ignores_ranges_sends_it_all_again(site, path, content):
    site.ranges = False
    site.faults = [("break", 262_144), ("break", 65_536)]
    download(site.url, path)
    assert ranges(site) == [None, "bytes=262144-", "bytes=65536-"]
    assert_whole(path, content)


def test_a_part_that_was_not_asked_for_is_not_used(site, path, content):
    site.faults = [("break", 65_536), ("shift", 10)]
    download(site.url, path)
    assert_whole(path, content)


def test_all_of_it_was_there_already(site, path, content):
    site.faults = list(GIVES_UP)
    with pytest.raises(DataError):
        download(site.url, path)
    path.with_name("weights.bin.part").write_bytes(content)
    download(site.url, path)
    assert_whole(path, content)
    path.unlink()
    path.with_name("weights.bin.sha256").unlink()


def test_more_than_all_of_it_was_there(site, path, content):
    site.faults = list(GIVES_UP)
    with pytest.raises(DataError):
        download(site.url, path)
    path.with_name("weights.bin.part").write_bytes(content + b"more")
    download(site.url, path)
    assert_whole(path, content)


def test_a_length_that_is_not_said(site, path, content):
    site.chunked = True
    download(site.url, path)
    assert_whole(path, content)


def test_wrong_bytes_are_not_kept(site, path, content):
    with pytest.raises(DataError, match=f"sha256 is {digest(content)}, not the expected 00"):
        download(site.url, path, sha256="00")
    assert list(path.parent.iterdir()) == []


def test_what_was_left_of_another_file_is_found_out_by_the_digest(site, path, content):
    site.faults = list(GIVES_UP)
    with pytest.raises(DataError):
        download(site.url, path)
    path.with_name("weights.bin.part").write_bytes(b"x" * 65_536)
    assert download(site.url, path, sha256=digest(content).upper()) == digest(content)
    assert ranges(site)[-2:] == ["bytes=65536-", None]
    assert_whole(path, content)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_failures_are_tried_again(site, path, content, pauses, status):
    site.faults = [("status", status), ("status", status)]
    download(site.url, path)
    assert_whole(path, content)
    assert pauses == [1, 2]


def test_a_server_says_how_long_to_wait(site, path, pauses):
    site.faults = [("status", 503, ("Retry-After", "30")), ("status", 429, ("Retry-After", "soon"))]
    download(site.url, path)
    assert pauses == [30, 2]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_lasting_failures_are_not(site, path, pauses, status):
    site.faults = [("status", status)]
    with pytest.raises(DataError, match=f" {status} ") as caught:
        download(site.url, path)
    assert pauses == []
    assert f"put it at {path}" in str(caught.value)


def test_a_page_to_log_in_is_not_the_file(site, path):
    site.faults = [("html",)]
    with pytest.raises(DataError, match="a web page"):
        download(site.url, path)
    assert not path.exists()


def test_without_network_the_message_says_what_to_fetch_and_where_to_put_it(path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/cutler.pth"
        with pytest.raises(DataError) as caught:
            download(url, path)
    message = str(caught.value)
    assert message.startswith(f"cannot download {url} (")
    assert message.endswith(f"download it on a machine with network and put it at {path}")


def test_a_file_that_is_there_is_kept_unless_it_is_another(site, path, content):
    download(site.url, path)
    assert download(site.url, path) == digest(content)
    assert len(site.requests) == 1
    with pytest.raises(DataError, match="exists, but its sha256 is"):
        download(site.url, path, sha256="00")
    path.write_bytes(b"changed")
    with pytest.raises(DataError, match=r"\.sha256; delete"):
        download(site.url, path)
    path.with_name("weights.bin.sha256").unlink()
    assert download(site.url, path) == digest(b"changed")  # put there by hand


def test_a_full_disk_is_named(site, path, full_disk, content):
    with full_disk(), pytest.raises(DataError, match=r"weights\.bin\.part: cannot be written"):
        download(site.url, path)


@pytest.mark.parametrize("source", ["ftp://x/y", "weights.bin", "file:///etc/passwd"])
def test_other_addresses_are_refused(path, source):
    with pytest.raises(ConfigError, match="neither http"):
        download(source, path)
