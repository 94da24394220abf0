import socket
import time

import pytest
from huggingface_hub import constants

from cuvler.download.errors import FetchError
from cuvler.eigenvectors import hub as module
from cuvler.eigenvectors.hub import fetch_from_hub

from .conftest import Hub

FILE = ("timm/vit_small_patch16_224.dino", "model.safetensors")


def test_a_file_is_fetched_once(hub, hub_settings):
    path = fetch_from_hub(*FILE)
    assert path.read_bytes() == Hub.content
    assert FILE in hub
    hub.clear()
    assert fetch_from_hub(*FILE) == path
    assert hub == []  # not even asked


def test_a_cached_file_needs_no_network(hub, hub_settings):
    path = fetch_from_hub(*FILE)
    hub_settings("http://127.0.0.1:1")
    assert fetch_from_hub(*FILE) == path


@pytest.mark.usefixtures("hub")
def test_what_the_hub_lacks_is_an_error_of_the_download():
    with pytest.raises(FetchError, match="404"):
        fetch_from_hub("timm/vit", "nothing.safetensors")


@pytest.mark.slow
def test_without_an_answer_it_does_not_wait_for_long(no_hub):
    start = time.perf_counter()
    with pytest.raises(FetchError, match="within 3 s" if no_hub == "silent" else "Errno"):
        fetch_from_hub(*FILE)
    assert time.perf_counter() - start < 4


def test_a_name_server_that_hangs_is_not_waited_for(hub_settings, monkeypatch):
    hub_settings("http://hub.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(9))
    monkeypatch.setattr(module, "_WAIT", 0.5)
    start = time.perf_counter()
    with pytest.raises(FetchError, match=r"no answer within 0\.5 s"):
        fetch_from_hub(*FILE)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("no_hub", ["silent"], indirect=True)
@pytest.mark.usefixtures("no_hub")
def test_the_hubs_own_setting_says_how_long_to_wait(monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    with pytest.raises(FetchError, match="no answer within 1 s"):
        fetch_from_hub(*FILE)
