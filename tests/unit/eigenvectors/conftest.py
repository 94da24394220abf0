"""A hub on this machine, and places where there is none."""

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

STATE = {"weight": torch.arange(3.0)}
COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """Publishes one file, in every repository of timm."""

    content = save(STATE)

    def do_HEAD(self):
        path = self.path.split("/")
        self.server.asked.append(("/".join(path[1:3]), path[-1]))
        known = self.path.startswith("/timm/") and self.path.endswith("/model.safetensors")
        self.send_response(200 if known else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub_settings(tmp_path, monkeypatch):
    """Set the address of the hub; its cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def set_address(address):
        paths = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + paths)

    return set_address


@pytest.fixture
def hub(hub_settings, monkeypatch):
    """A hub that publishes ``STATE``; the list of what it was asked for."""
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "60")  # A busy machine may take longer than 3 s.
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub_settings(f"http://127.0.0.1:{server.server_port}")
    yield server.asked
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["refused", "silent"])
def no_hub(request, hub_settings):
    """No hub: nothing listens, or what listens never answers, as behind some firewalls."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        hub_settings(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield request.param
