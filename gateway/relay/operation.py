"""What one relayed endpoint means; each slice (chat, embeddings …) defines its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from gateway.errors import GatewayError
from gateway.http.event_stream import error_event
from gateway.http.validation import decode_request

__all__ = ["Operation", "Tee", "no_attributes"]


class Tee(Protocol):
    """Is shown an answer as it passes, to keep its content for a trace.

    A relay without one never looks at more than it needs.
    """

    def answer(self, body: bytes) -> None:
        """A plain answer, whole."""

    def event(self, data: bytes) -> None:
        """One event's data of a stream, in order."""

    def content(self) -> dict[str, str]:
        """Attribute names and the messages in and out, as JSON."""


RequestT = TypeVar("RequestT", bound=Struct)


def no_attributes(_: Struct) -> dict[str, Any]:
    """For operations whose requests say nothing that the conventions have a name for."""
    return {}


@dataclass(kw_only=True)
class Operation(Generic[RequestT]):
    """A relayed endpoint."""

    name: str
    """``gen_ai.operation.name``."""
    path: str
    """The model server's own."""
    request: type[RequestT]
    """What the gateway reads of a request; everything else passes."""
    kinds: tuple[str, ...]
    """The kinds of models that can do it, the usual one first; empty for all."""
    attributes: Callable[[RequestT], dict[str, Any]] = no_attributes
    """The span attributes of a request."""
    api_type: str | None = None
    """``openai.api.type``."""
    asks_usage: bool = False
    """A stream has a usage event only on request."""
    conforms: bool = False
    """Plain answers need the server's hand to fit OpenAI's schemas."""
    large_answers: bool = False
    """Answers are big and carry their usage at the end, so that only the end is read."""
    stream_model_path: tuple[str, ...] = ("model",)
    """Where an event names the model."""
    tee: Callable[[bytes], Tee] | None = None
    """Makes, from a request's body, what keeps the content of the request and its answer."""
    to_upstream: Callable[[RequestT], bytes] | None = None
    """Translates a request where the server's form is another."""
    from_upstream: Callable[[bytes], bytes] | None = None
    """Translates a plain answer back."""
    error_body: Callable[[GatewayError], bytes] = GatewayError.body
    """Writes an error; another API than OpenAI's has its own words."""
    error_event: Callable[[GatewayError], bytes] = error_event
    """Writes an error inside a stream."""

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[RequestT]:
        return msgspec.json.Decoder(self.request)

    def decode(self, body: bytes) -> RequestT:
        """The request as far as the gateway reads it. Raises ``InvalidRequest``."""
        return decode_request(self._decoder, body)
