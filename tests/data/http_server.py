"""A real HTTP server on 127.0.0.1 that misbehaves as told."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def ask_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to this machine go straight to it, whatever proxy the environment names. `no_proxy` beats `NO_PROXY`."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@dataclass
class Resource:
    """A file on the server. Each request takes the next fault; once there is none left, all goes well."""

    body: bytes
    faults: deque = field(default_factory=deque)


@dataclass(frozen=True)
class Request:
    path: str
    range: str | None


class Handler(BaseHTTPRequestHandler):
    server: "FaultServer"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append(Request(self.path, self.headers.get("Range")))
        resource = self.server.resources.get(self.path)
        if resource is None:
            self.answer(404)
        elif resource.faults:
            resource.faults.popleft()(self, resource)
        else:
            self.serve(resource)

    def serve(self, resource: Resource, *, ranges: bool = True, send: Callable[[bytes], None] | None = None) -> None:
        """Answer as a good server does, except for how the body is sent."""
        start, size = 0, len(resource.body)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if ranges and wanted:
            start = int(wanted[1])
            if start >= size:
                self.answer(416, {"Content-Range": f"bytes */{size}"})
                return
        headers = {"Content-Length": str(size - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.begin(206 if start else 200, headers)
        (send or self.send)(resource.body[start:])

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.begin(status, {"Content-Length": "0"} | (headers or {}))

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        # One request a connection, so that hanging up after it never surprises the client's next one.
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        # Counted first: who has received the bytes may look at the count at once.
        self.server.bytes_sent += len(data)
        try:
            self.wfile.write(data)
        except OSError:  # the client has gone
            self.server.bytes_sent -= len(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class FaultServer(ThreadingHTTPServer):
    """Use as a context manager. `bytes_sent` counts the bytes of bodies, `requests` keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.resources: dict[str, Resource] = {}
        self.requests: list[Request] = []
        self.bytes_sent = 0
        self.go_on = threading.Event()

    def __enter__(self) -> "FaultServer":
        # The default of 0.5 s between looks at the stop flag would be most of a test's time.
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()

    def add(self, path: str, body: bytes, *faults: Callable) -> str:
        """Put a file on the server and return its address."""
        self.resources[path] = Resource(body, deque(faults))
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


Fault = Callable[[Handler, Resource], None]


def drop(after: int) -> Fault:
    """Announce the whole body, send the first bytes of it, hang up. To the client this is a truncated body, too."""
    return lambda handler, resource: handler.serve(resource, send=lambda body: handler.send(body[:after]))


def stall(after: int) -> Fault:
    """Send the first bytes, then nothing until the test lets the server go on."""

    def send(handler: Handler, body: bytes) -> None:
        handler.send(body[:after])
        handler.server.go_on.wait(600)
        handler.send(body[after:])

    return lambda handler, resource: handler.serve(resource, send=lambda body: send(handler, body))


def trickle(pieces: int, pause_s: float) -> Fault:
    """Slow, but never silent for long."""

    def send(handler: Handler, body: bytes) -> None:
        length = -(-len(body) // pieces)
        for start in range(0, len(body), length):
            handler.send(body[start : start + length])
            time.sleep(pause_s)

    return lambda handler, resource: handler.serve(resource, send=lambda body: send(handler, body))


def status(code: int) -> Fault:
    return lambda handler, _: handler.answer(code)


def redirect(path: str) -> Fault:
    return lambda handler, _: handler.answer(302, {"Location": path})


def ignore_range(handler: Handler, resource: Resource) -> None:
    handler.serve(resource, ranges=False)


def truncated_consistently(to: int) -> Fault:
    """A short body that announces itself as whole, as a proxy may make it."""
    return lambda handler, resource: handler.serve(Resource(resource.body[:to]))


def wrong_bytes(handler: Handler, resource: Resource) -> None:
    """As many bytes as the right ones, one of them different."""
    handler.serve(Resource(corrupted(resource.body)))


def wrong_range(handler: Handler, resource: Resource) -> None:
    """Answer a range request with another range than asked for."""
    handler.begin(206, {"Content-Length": "3", "Content-Range": f"bytes 0-2/{len(resource.body)}"})
    handler.send(resource.body[:3])


def label_as_compressed(handler: Handler, resource: Resource) -> None:
    """As servers do with a `.tar.gz`: the bytes are the file's, and a client must not decompress them."""
    handler.begin(200, {"Content-Length": str(len(resource.body)), "Content-Encoding": "gzip"})
    handler.send(resource.body)


def no_length(handler: Handler, resource: Resource) -> None:
    """As HTTP/1.0: the end of the connection is the end of the body."""
    handler.begin(200, {})
    handler.send(resource.body)


def with_header(name: bytes, value: bytes, *, code: int = 200) -> Fault:
    """The whole body below a header of any bytes, whatever HTTP allows."""

    def answer(handler: Handler, resource: Resource) -> None:
        handler.close_connection = True
        handler.send(b"HTTP/1.1 %d X\r\n%s: %s\r\nConnection: close\r\n" % (code, name, value))
        handler.send(b"Content-Length: %d\r\n\r\n" % len(resource.body) + resource.body)

    return answer


def endless(handler: Handler, _: Resource) -> None:
    """A body that never ends, as long as somebody listens."""
    handler.begin(200, {"Transfer-Encoding": "chunked"})
    handler.connection.settimeout(1)
    piece = bytes(1 << 16)
    for _ in range(10_000):
        try:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:
            return
    raise AssertionError("655 MB were taken")


def then_replace(fault: Fault, body: bytes) -> Fault:
    """After the fault, another file lies at the address."""

    def apply(handler: Handler, resource: Resource) -> None:
        fault(handler, resource)
        resource.body = body

    return apply


def corrupted(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
