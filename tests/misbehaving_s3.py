"""An S3 server with faults: a proxy in front of a real one, which fails the requests that a test says, and
counts them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Kind = Literal["503", "cut request", "cut answer", "lost answer", "refuse"]
SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request '
    b"rate.</Message></Error>"
)
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


@dataclass
class Fault:
    """What happens to some requests.

    Attributes:
        kind: answered with 503; cut in the middle of the request; cut in the middle of the answer; carried
            out, but the answer is lost; answered with 403.
        times: how many requests it happens to.
        method, part: of which method, with which text in their address.
        after: requests that fit and are let through first.
        injected: how many it has happened to.
    """

    kind: Kind
    times: int = 1
    method: str = ""
    part: str = ""
    after: int = 0
    injected: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def takes(self, method: str, address: str) -> bool:
        with self.lock:
            if (
                self.injected == self.times
                or self.part not in address
                or (self.method and method != self.method)
            ):
                return False
            if self.after:
                self.after -= 1
                return False
            self.injected += 1
            return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MisbehavingS3

    def log_message(self, *arguments: object) -> None:
        """Is silent."""

    def do(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        fault = next((f.kind for f in self.server.faults if f.takes(self.command, self.path)), None)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut request":
            self.rfile.read(length // 2)
            self.connection.close()
            self.close_connection = True
            return
        content = self.rfile.read(length)
        if fault in ("503", "refuse"):
            self.answer(503 if fault == "503" else 403, [], SLOW_DOWN if fault == "503" else DENIED)
            return
        behind = http.client.HTTPConnection(self.server.behind, timeout=30)
        behind.request(
            self.command, self.path, content, {k: v for k, v in self.headers.items() if k.lower() != "expect"}
        )
        got = behind.getresponse()
        answer = got.read()
        behind.close()
        if fault == "lost answer":
            self.close_connection = True
            return
        self.answer(got.status, got.getheaders(), answer, half=fault == "cut answer")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool = False) -> None:
        self.send_response_only(status)
        kept = [
            (k, v)
            for k, v in headers
            if k.lower() not in ("connection", "transfer-encoding", "content-length")
        ]
        size = (
            {k.lower(): v for k, v in headers}.get("content-length", "0")
            if self.command == "HEAD"
            else str(len(content))
        )
        for name, value in [*kept, ("Content-Length", size)]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        self.close_connection |= half


class MisbehavingS3(ThreadingHTTPServer):
    """
    Attributes:
        faults: the first that fits a request happens to it.
        requests: all there were, as ``METHOD address``.
    """

    daemon_threads = True

    def __init__(self, behind: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = behind.removeprefix("http://")
        self.faults: list[Fault] = []
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Is silent: a client that hangs up is no failure of a test."""

    def inject(self, kind: Kind, times: int = 1, **where: object) -> Fault:
        """Faults from now on; returns what counts them."""
        self.faults[:] = [Fault(kind, times, **where)]  # type: ignore[arg-type]
        return self.faults[0]


@contextmanager
def misbehaving(behind: str) -> Iterator[MisbehavingS3]:
    server = MisbehavingS3(behind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
