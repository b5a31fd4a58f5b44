"""What a vLLM says, before it becomes bytes: whole answers, event streams, and the error shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Whole:
    """An answer with a content-length."""

    status: int
    body: bytes
    content_type: str | None = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """A stream of server-sent events, each of them one HTTP chunk."""

    events: list[bytes]
    headers: dict[str, str] = field(default_factory=dict)


Answer = Whole | Events


class RefusedError(Exception):
    """Raised while a request is checked; carries the answer that refuses it."""

    def __init__(self, answer: Whole) -> None:
        super().__init__(answer)
        self.answer = answer


def compact(value: Any) -> bytes:
    """JSON as vLLM writes it: no spaces, no escapes for what is not ASCII."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def json_answer(value: Any, status: int = 200, **headers: str) -> Whole:
    """A JSON body with this status."""
    return Whole(status, compact(value), headers=headers)


def event(value: Any, name: str | None = None) -> bytes:
    """One event; `/v1/messages` names its events, the OpenAI routes do not."""
    prefix = f"event: {name}\n".encode() if name else b""
    return prefix + b"data: " + compact(value) + b"\n\n"


def vllm_error(
    status: int, message: str, kind: str | None = None, param: str | None = None, **headers: str
) -> Whole:
    """Shape 1, vLLM's own: ``code`` is the status as a number, not OpenAI's string."""
    usual = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "InternalServerError")
    return json_answer(_error(message, kind or usual, param, status), status, **headers)


def validation_error(*problems: str, param: str | None = None) -> Whole:
    """Shape 2, Pydantic's report in vLLM's envelope; ``type`` has a space in it."""
    count = "1 validation error" if len(problems) == 1 else f"{len(problems)} validation errors"
    message = "\n  ".join([f"{count}:", *problems])
    return json_answer(_error(message, "Bad Request", param, 400), 400)


def invalid(kind: str, location: str, message: str, given: str, **context: Any) -> Whole:
    """Shape 2 for one field, worded as Pydantic words it."""
    return validation_error(_problem(kind, location, message, given, **context), param=location)


def missing(body: dict[str, Any], *names: str) -> Whole:
    """Shape 2 for fields that a body lacks."""
    given = f"<dict of {len(body)} items>"
    problems = [_problem("missing", f"body.{name}", "Field required", given) for name in names]
    return validation_error(*problems, param=f"body.{names[0]}")


def anthropic_error(error: Whole) -> Whole:
    """Shape 1 as ``/v1/messages`` words it; its validation errors keep shape 2."""
    said = json.loads(error.body)["error"]
    if said["type"] == "Bad Request":
        return error
    short = {"type": said["type"], "message": said["message"]}
    return json_answer({"type": "error", "error": short}, error.status)


def unauthorized() -> Whole:
    """Shape 3, a wrong or missing key: ``error`` is a string."""
    return json_answer({"error": "Unauthorized"}, 401)


def detail(status: int, **headers: str) -> Whole:
    """Shape 4, the framework's own: an unknown route or a wrong method."""
    return json_answer({"detail": HTTPStatus(status).phrase}, status, **headers)


def error_event(
    message: str = "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    kind: str = "InternalServerError",
    code: int = 500,
) -> bytes:
    """Shape 5, an error inside a stream that began with 200; vLLM writes this one with spaces."""
    return b"data: " + json.dumps(_error(message, kind, None, code)).encode() + b"\n\n"


def _problem(kind: str, location: str, message: str, given: str, **context: Any) -> str:
    problem: dict[str, Any] = {"type": kind, "loc": location, "msg": message, "input": given}
    return repr({**problem, "ctx": context} if context else problem)


def _error(message: str, kind: str, param: str | None, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
