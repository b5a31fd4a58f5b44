"""What an answer must be like, whichever test looks at it."""

from __future__ import annotations

import json
from typing import Any

import httpx

ERROR_KEYS = {"message", "type", "param", "code"}
RETRIED = (429, 503)
"""Statuses that carry `retry-after`."""


def error_in(body: bytes | str) -> dict[str, Any]:
    """The error of a body or of an event's data, after a look at its shape."""
    shown = json.loads(body)
    error = shown["error"]
    assert set(shown) - {"type"} == {"error"}, shown
    assert shown.get("type", "error") == "error", shown
    assert set(error) == ERROR_KEYS, error
    assert isinstance(error["message"], str), error
    assert error["message"], error
    assert isinstance(error["type"], str), error
    assert error["param"] is None or isinstance(error["param"], str), error
    assert error["code"] is None or isinstance(error["code"], str), error
    return error


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer with this status, in OpenAI's shape and with OpenAI's headers."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    if status in RETRIED:
        assert int(answer.headers["retry-after"]) >= 1
    else:
        assert "retry-after" not in answer.headers
    error = error_in(answer.content)
    assert ("type" in answer.json()) == ("/messages" in answer.request.url.path)
    return error


def payloads(stream: bytes) -> list[bytes]:
    """The data of each event of a whole stream; comments are left out."""
    assert stream.endswith((b"\n\n", b"\r\n\r\n")), f"cut inside an event: {stream[-80:]!r}"
    lines = (line.removesuffix(b"\r") for line in stream.split(b"\n"))
    return [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
