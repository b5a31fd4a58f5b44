"""One call to a model server, as telemetry will tell of it."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from gateway.relay.operation import Operation
    from gateway.routing.catalog import Backend


class TokenDetails(Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(Struct, frozen=True):
    """Token counts in the words of either API: OpenAI's and Anthropic's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None

    @property
    def input(self) -> int | None:
        return self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens

    @property
    def output(self) -> int | None:
        return self.completion_tokens if self.completion_tokens is not None else self.output_tokens


class ModelCall:
    """What is known of a call so far. Times are ``perf_counter_ns``; ``None`` is "not known"."""

    __slots__ = (
        "backend",
        "content",
        "ended",
        "error_type",
        "finish_reasons",
        "first_chunk",
        "model",
        "operation",
        "request",
        "resend_count",
        "response_id",
        "response_model",
        "span_id",
        "started",
        "stream",
        "system_fingerprint",
        "usage",
    )

    def __init__(
        self, operation: Operation[Any], model: str, backend: Backend, request: Any, span_id: int
    ) -> None:
        self.operation = operation
        self.model = model
        self.backend = backend
        self.request = request
        self.span_id = span_id
        self.stream = False
        self.resend_count = 0
        """How many backends were asked before, for the same request."""
        self.started = perf_counter_ns()
        self.first_chunk: int | None = None
        self.ended: int | None = None
        self.usage: Usage | None = None
        self.finish_reasons: list[str] = []
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.system_fingerprint: str | None = None
        self.error_type: str | None = None
        self.content: dict[str, str] | None = None
        """The messages in and out, as JSON; only where their capture was opted into."""

    def end(self, error_type: str | None = None) -> None:
        """The answer is complete, or the call failed; the first end counts."""
        if self.ended is None:
            self.ended = perf_counter_ns()
            self.error_type = error_type
