"""A stand-in for the detectors of FMS guardrails, as TrustyAI runs them on OpenShift AI.

    with DetectorServer(words={"idiot": "hap"}) as detectors: …

Path, headers, shapes and errors are those of TrustyAI's guardrails-detectors: a list of detections
for each of `contents`, `{"code", "message"}` for what it refuses, and the plain `Unauthorized` of
the proxy in front of it. What it finds are words, where the real ones have models.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/api/v1/text/contents"


@dataclass
class ReceivedRequest:
    headers: dict[str, str]
    body: Any


class DetectorServer:
    """On a free port of loopback. `words` are what is found, with the type of each.

    `score` is that of every detection. `fail_with` is the status of the next answers, `raw` a body
    in place of the right one, `seconds` how long it takes.
    """

    def __init__(
        self,
        words: dict[str, str] | None = None,
        *,
        score: float = 0.9,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.words = words or {}
        self.score = score
        self.token = token
        self.fail_with: int | None = None
        self.raw: bytes | None = None
        self.seconds = 0.0
        self.early = False
        """Answer as the first versions did, with the kind of model for a type."""
        self.requests: list[ReceivedRequest] = []
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"detectors": self})
        )
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def detections(self, text: str) -> list[dict[str, Any]]:
        found = []
        for word, kind in self.words.items():
            start = text.lower().find(word)
            if start < 0:
                continue
            detection: dict[str, Any] = {
                "start": start,
                "end": start + len(word),
                "text": text[start : start + len(word)],
                "detection": "single_label_classification",
                "detection_type": kind,
                "score": self.score,
                "evidences": [],
                "metadata": {},
            }
            if self.early:
                detection |= {
                    "detection": "sequence_classifier",
                    "detection_type": "sequence_classification",
                    "sequence_classification": kind,
                    "sequence_probability": self.score,
                }
            found.append(detection)
        return found


class _Handler(BaseHTTPRequestHandler):
    detectors: DetectorServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.detectors
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.requests.append(ReceivedRequest(headers, json.loads(raw)))
        time.sleep(server.seconds)
        body = server.requests[-1].body
        if server.token and headers.get("authorization") != f"Bearer {server.token}":
            self._answer(401, b"Unauthorized\n", "text/plain; charset=utf-8")
        elif self.path != PATH:
            self._answer(404, {"code": 404, "message": "Not Found"})
        elif server.fail_with is not None:
            self._answer(server.fail_with, {"code": server.fail_with, "message": "as told"})
        elif missing := [name for name in ("contents", "detector_params") if name not in body]:
            message = f"Missing required parameters: {missing}"
            self._answer(422, {"code": 422, "message": message})
        elif server.raw is not None:
            self._answer(200, server.raw)
        else:
            self._answer(200, [server.detections(text) for text in body["contents"]])

    def _answer(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        with contextlib.suppress(ConnectionError):  # a caller may have left meanwhile
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass
