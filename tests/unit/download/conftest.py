"""A server on this machine that fails in the ways servers fail."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CONTENT = bytes(range(256)) * 2000  # half a megabyte


class Site:
    """What the server does; ``faults`` are used up, one a request.

    Attributes:
        content: of its one file.
        etag: its version; None sends neither tag nor date.
        ranges: whether it knows about ranges.
        faults: ``("break", bytes)`` closes the connection after so many bytes, ``("status", n)``
            answers so, ``("html",)`` sends a page, ``("shift", bytes)`` sends another part than
            was asked for.
        requests: the headers of every request.
    """

    def __init__(self):
        self.content = CONTENT
        self.etag = '"one"'
        self.ranges = True
        self.chunked = False
        self.faults = []
        self.requests = []
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        site.requests.append(self.headers)
        fault, *arguments = site.faults.pop(0) if site.faults else ("none",)
        if fault == "status":
            self.answer(arguments[0], b"no", dict(arguments[1:]))
        elif fault == "html":
            self.answer(200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"})
        else:
            self.send_file(site, fault, *arguments)

    def send_file(self, site, fault, count=0):
        begin, total = 0, len(site.content)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", site.etag) == site.etag
        status, headers = 200, {}
        if site.ranges and asked and same:
            begin = int(asked[1])
            if begin >= total:
                return self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
            begin += count if fault == "shift" else 0
            status, headers = 206, {"Content-Range": f"bytes {begin}-{total - 1}/{total}"}
        if site.etag:
            headers["ETag"] = site.etag
        cut = count if fault == "break" else None
        return self.answer(status, site.content[begin:], headers, cut, chunked=site.chunked)

    def answer(self, status, body, headers, cut=None, chunked=False):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if chunked:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Ignore clients that disconnect: the tests do so on purpose."""


@pytest.fixture
def site():
    server = Server(("127.0.0.1", 0), Handler)
    server.site = Site()
    server.site.url = f"http://127.0.0.1:{server.server_address[1]}/weights.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def content():
    return CONTENT


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Nobody waits; the seconds that would have been."""
    waited = []
    monkeypatch.setattr("cuvler.download.http.time.sleep", waited.append)
    return waited
