"""Running `understudy check` on parts of the configuration, and an S3 server that denies rights."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from gateway.app import systems_of
from gateway.check.everything import probes_of
from gateway.check.finding import Finding
from gateway.check.probe import run_all
from gateway.settings import Settings

HOST = "127.0.0.1"
DENIED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"""


async def check(
    folder: Path, *systems: str, seconds: float = 10.0, **sections: Any
) -> list[Finding]:
    """What is found of these systems with these settings."""
    settings = msgspec.convert({"data_dir": str(folder), **sections}, Settings)
    probes = [one for one in probes_of(systems_of(settings)) if one.system in systems]
    return await run_all(probes, seconds=seconds)


async def check_one(folder: Path, system: str, **options: Any) -> Finding:
    """The one thing that is found."""
    [found] = await check(folder, system, **options)
    return found


@contextmanager
def denying(endpoint: str, denied: Callable[[str, str], bool]) -> Iterator[str]:
    """The endpoint of what stands before an S3 server and denies some calls, by method and path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if denied(self.command, self.path):
                self._answer(403, DENIED, "application/xml")
                return
            caller = http.client.HTTPConnection(endpoint, timeout=10)
            try:
                caller.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    caller.putheader(name, value)
                caller.endheaders(body)
                answer = caller.getresponse()
                data = answer.read()
                kind = answer.getheader("content-type", "application/xml")
                self._answer(answer.status, data, kind, answer.getheader("etag"))
            finally:
                caller.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815  (as it is named there)

        def _answer(self, status: int, data: bytes, kind: str, etag: str | None = None) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            if etag:
                self.send_header("etag", etag)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
