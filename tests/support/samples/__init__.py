"""Request/response pairs recorded from a real vLLM 0.32, read back as they were.

    sample("chat-nonstream").json["choices"]
    sample("chat-stream-usage").events[-1]  # b"data: [DONE]\\n\\n"

Embedding vectors are cut to eight numbers; all else is what the server sent.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_REQUEST_LINE = re.compile(rb"^(GET|POST|HEAD) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """One recorded exchange; ``body`` and ``events`` are free of HTTP chunk framing."""

    name: str
    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes]
    method: str | None
    path: str | None
    request: bytes

    @property
    def json(self) -> Any:
        """The answer's body as JSON."""
        return json.loads(self.body)

    @property
    def request_json(self) -> Any:
        """The request's body as JSON."""
        return json.loads(self.request)

    @property
    def events(self) -> list[bytes]:
        """The event stream's events, each with its closing blank line."""
        return [event + b"\n\n" for event in self.body.split(b"\n\n") if event.strip()]

    @property
    def payloads(self) -> list[Any]:
        """The JSON of each event that has some; ``[DONE]`` is left out."""
        lines = (line for event in self.events for line in event.split(b"\n"))
        data = (line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: "))
        return [json.loads(item) for item in data if item != b"[DONE]"]


def names() -> list[str]:
    """Every sample there is."""
    return sorted(path.stem for path in _FOLDER.glob("*.txt"))


@cache
def sample(name: str) -> Sample:
    """Read the recorded exchange of this name."""
    raw = (_FOLDER / f"{name}.txt").read_bytes()
    asked, _, answered = raw.rpartition(b"### RESPONSE")
    head, _, rest = answered[answered.index(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines if line)}
    chunks = _chunks(rest) if headers.get("transfer-encoding") == "chunked" else [rest]
    line = _REQUEST_LINE.search(asked)
    return Sample(
        name=name,
        status=int(status_line.split()[1]),
        headers=headers,
        body=b"".join(chunks),
        chunks=chunks,
        method=line[1].decode() if line else None,
        path=line[2].decode() if line else None,
        request=_request_body(asked),
    )


def _request_body(asked: bytes) -> bytes:
    last = asked.rstrip().rpartition(b"\n")[2]
    return last if last.startswith(b"{") else b""


def _chunks(rest: bytes) -> list[bytes]:
    """Undo chunked transfer coding; a few samples were recorded without it."""
    if not re.match(rb"[0-9a-f]+\r\n", rest):
        return [rest]
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    return chunks
