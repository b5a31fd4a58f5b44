"""A stand-in for docling-serve, whose real one is 2.9 GB with torch.

Routes, shapes and oddities are those of a real docling-serve 1.38.2, recorded in
``docling_samples``: 200 for a file that can't be read, 404 for a result that was fetched before.
What it answers of a document comes from the light converter, since there is no model in it.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from adapters.docling.engine import Engine, EngineOptions
from gateway.ports import ConversionFailed

SAMPLES = Path(__file__).parent / "docling_samples"


def sample(name: str):
    return json.loads((SAMPLES / f"{name}.json").read_text())


class DoclingServe:
    """On a free port of loopback, from ``start`` to ``stop``. ``seconds`` is what a file takes."""

    def __init__(self, api_key: str | None = None, seconds: float = 0.0) -> None:
        self.api_key = api_key
        self.seconds = seconds
        self.fail_next = 0
        self.crash_tasks = False
        self.requests: list[str] = []
        self.fields: dict[str, list[str]] = {}
        self.files: list[str] = []
        self.tasks: dict[str, tuple[float, dict]] = {}
        self._engine = Engine(
            EngineOptions(
                max_pages=10_000,
                max_file_bytes=2**30,
                max_unzipped_bytes=2**30,
                max_chunks=100,
                memory_bytes=2**40,
            )
        )
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"serve": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def submit(self, name: str, data: bytes) -> dict:
        task = str(uuid.uuid4())
        self.files.append(name)
        result = self._result(name, data)
        self.tasks[task] = (time.monotonic() + self.seconds, result)
        return {**sample("async_submit"), "task_id": task}

    def _result(self, name: str, data: bytes) -> dict:
        with TemporaryDirectory() as folder, self._lock:
            path = Path(folder) / name
            path.write_bytes(data)
            try:
                document = json.loads(self._engine.convert(path, name))
            except ConversionFailed:
                failed = sample("err_encrypted")
                failed["document"]["filename"] = name
                return failed
        result = sample("convert_source_response")
        result["document"].update(filename=name, md_content=None, json_content=document)
        return result


class _Handler(BaseHTTPRequestHandler):
    serve: DoclingServe
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self._allowed():
            return
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + body)
        name, data, fields = "", b"", {}
        for part in form.iter_parts():
            disposition = part["content-disposition"].params
            if "filename" in disposition:
                name, data = disposition["filename"], part.get_payload(decode=True)
            else:
                text = part.get_payload(decode=True).decode()
                fields.setdefault(disposition["name"], []).append(text)
        self.serve.fields = fields
        self._answer(200, self.serve.submit(name, data))

    def do_GET(self) -> None:
        if not self._allowed():
            return
        task = self.path.rpartition("/")[2].partition("?")[0]
        known = self.serve.tasks.get(task)
        if known is None:
            self._answer(404, sample("err_sync_failed_task_404"))
        elif "/status/poll/" in self.path:
            done = time.monotonic() >= known[0]
            if done and self.serve.crash_tasks:
                self.serve.tasks[task] = (0, {})
                self._answer(200, {**sample("async_poll_failed"), "task_id": task})
                return
            status = "success" if done else "started"
            self._answer(200, {**sample("async_poll"), "task_id": task, "task_status": status})
        elif result := self.serve.tasks.pop(task)[1]:
            self._answer(200, result)
        else:
            self._answer(404, sample("err_sync_failed_task_404"))

    def _allowed(self) -> bool:
        self.serve.requests.append(f"{self.command} {self.path}")
        if self.serve.fail_next:
            self.serve.fail_next -= 1
            self._answer(503, {"detail": "Service Unavailable"})
            return False
        if self.serve.api_key and self.headers.get("x-api-key") != self.serve.api_key:
            self._answer(401, {"detail": "Api key is required as X-Api-Key header"})
            return False
        return True

    def _answer(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass
