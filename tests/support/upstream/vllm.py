"""The routes of a vLLM server and what they answer, one request in, one answer out."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.upstream import chat, completions, embeddings, messages, tokens
from tests.support.upstream.answers import (
    Answer,
    RefusedError,
    Whole,
    anthropic_error,
    detail,
    invalid,
    json_answer,
    unauthorized,
    validation_error,
    vllm_error,
)
from tests.support.upstream.wire import Received

Kind = Literal["chat", "embedding"]
Route = Callable[["Vllm", "Call"], Answer]


@dataclass
class Call:
    """A request whose body was read: what a route needs to answer it."""

    body: dict[str, Any]
    model: str
    id: str  # without its prefix
    created: int


@dataclass
class Vllm:
    """One server: what it serves and how it was started."""

    models: list[str]
    kind: Kind = "chat"
    reply: str | Callable[[dict[str, Any]], str] = "The capital of France is Paris."
    """What it says to a request's body."""
    chances: dict[str, dict[str, float]] = field(default_factory=dict)
    """For tokens of the reply the probabilities that `logprobs` shows; else it is sure."""
    max_model_len: int = 2048
    dimensions: int = 384
    api_key: str | None = None
    request_id_headers: bool = False
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def answer(self, request: Received) -> Answer:
        """What this server says to this request."""
        allowed = request.headers.get("authorization") == f"Bearer {self.api_key}"
        if self.api_key and request.path.startswith("/v1/") and not allowed:
            return unauthorized()
        try:
            return self._route(request)
        except RefusedError as refusal:
            named = request.path.startswith("/v1/messages")
            return anthropic_error(refusal.answer) if named else refusal.answer
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as odd:
            # A value that Pydantic would have refused before any of this code saw it.
            return invalid("value_error", "body", f"Value error, {odd}", "odd")

    def echo(self, request: Received) -> str | None:
        """The ``x-request-id`` of the answer, with ``--enable-request-id-headers``."""
        if not self.request_id_headers:
            return None
        return request.headers.get("x-request-id") or self._new_id() * 2

    def _route(self, request: Received) -> Answer:
        gets = {"/v1/models": self._list_models, **_PLAIN}
        posts = {**_POSTS[self.kind], **_POSTS_OF_BOTH}
        if request.path == "/openapi.json" and request.method == "GET":
            paths: dict[str, Any] = {path: {"get": {}} for path in gets}
            paths.update({path: {"post": {}} for path in posts})
            return json_answer({"openapi": "3.1.0", "info": {"title": "FastAPI"}, "paths": paths})
        if request.path in gets:
            return gets[request.path]() if request.method == "GET" else detail(405, allow="GET")
        if request.path not in posts:
            return detail(404)
        if request.method != "POST":
            return detail(405, allow="POST")
        body = _read_body(request)
        return posts[request.path](self, self._call(body, request))

    def _call(self, body: dict[str, Any], request: Received) -> Call:
        model = body.get("model") or self.models[0]
        if model not in self.models:
            message = f"The model `{model}` does not exist."
            if self.kind == "embedding":
                raise RefusedError(vllm_error(404, message))
            message += f" Valid aliases: {', '.join(self.models)}."
            raise RefusedError(vllm_error(404, message, param="model"))
        name = request.headers.get("x-request-id") or body.get("request_id") or self._new_id()
        return Call(body, model, name, int(time.time()))

    def _new_id(self) -> str:
        return f"{next(self._ids):016x}"

    def _list_models(self) -> Whole:
        now = int(time.time())
        data = [
            {
                "id": model,
                "object": "model",
                "created": now,
                "owned_by": "vllm",
                "root": f"models/{model}",
                "parent": None,
                "max_model_len": self.max_model_len,
                "permission": [_permission(self._new_id(), now)],
            }
            for model in self.models
        ]
        return json_answer({"object": "list", "data": data})


def _permission(name: str, now: int) -> dict[str, Any]:
    return {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


def _read_body(request: Received) -> dict[str, Any]:
    """The body as a JSON object, or the refusal that vLLM gives."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        problem = "Unsupported Media Type: Only 'application/json' is allowed"
        raise RefusedError(validation_error(problem))
    if not request.body:
        raise RefusedError(invalid("missing", "body", "Field required", "None"))
    try:
        body = json.loads(request.body)
    except ValueError as error:
        position = getattr(error, "pos", 0)
        cause = getattr(error, "msg", "Expecting value")
        refusal = invalid(
            "json_invalid",
            f"body.{position}",
            "JSON decode error",
            "<dict of 0 items>",
            error=cause,
        )
        raise RefusedError(refusal) from None
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary"
        raise RefusedError(invalid("model_attributes_type", "body", message, str(body)))
    return body


def _empty() -> Whole:
    return Whole(200, b"", content_type=None)


_PLAIN: dict[str, Callable[[], Answer]] = {
    "/health": _empty,
    "/ping": _empty,
    "/version": lambda: json_answer({"version": "0.32.0"}),
    "/load": lambda: json_answer({"server_load": 0}),
}
_POSTS_OF_BOTH: dict[str, Route] = {
    "/tokenize": tokens.tokenize,
    "/detokenize": tokens.detokenize,
}
_POSTS: dict[Kind, dict[str, Route]] = {
    "chat": {
        "/v1/chat/completions": chat.answer,
        "/v1/completions": completions.answer,
        "/v1/messages": messages.answer,
        "/v1/messages/count_tokens": messages.count,
    },
    "embedding": {
        "/v1/embeddings": embeddings.answer,
        "/rerank": embeddings.rerank,
        "/v1/rerank": embeddings.rerank,
        "/v2/rerank": embeddings.rerank,
    },
}
