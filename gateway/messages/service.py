"""What an Anthropic message is to the relay and to a trace, and errors in Anthropic's words."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import GatewayError
from gateway.messages.schemas import CountTokensRequest, MessagesRequest
from gateway.observability import semconv
from gateway.relay.operation import Operation

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(error: GatewayError) -> bytes:
    """One body that both kinds of client can read: Anthropic's envelope around OpenAI's fields."""
    fallback = "invalid_request_error" if error.status < 500 else "api_error"
    detail = error.to_dict() | {"type": _TYPES.get(error.status, fallback)}
    return msgspec.json.encode({"type": "error", "error": detail})


def anthropic_error_event(error: GatewayError) -> bytes:
    return b"event: error\ndata: " + anthropic_error(error) + b"\n\n"


def message_attributes(request: MessagesRequest) -> dict[str, Any]:
    attributes: dict[str, Any] = {semconv.REQUEST_MAX_TOKENS: request.max_tokens}
    for field, name in (
        ("temperature", semconv.REQUEST_TEMPERATURE),
        ("top_p", semconv.REQUEST_TOP_P),
        ("top_k", semconv.REQUEST_TOP_K),
    ):
        if (value := getattr(request, field)) is not None:
            attributes[name] = value
    if request.stop_sequences:
        attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(request.stop_sequences)
    return attributes


MESSAGES = Operation(
    name="chat",
    path="/v1/messages",
    request=MessagesRequest,
    kinds=("chat", "moderation"),
    attributes=message_attributes,
    stream_model_path=("message", "model"),
    error_body=anthropic_error,
    error_event=anthropic_error_event,
)

COUNT_TOKENS = Operation(
    name="count_tokens",
    path="/v1/messages/count_tokens",
    request=CountTokensRequest,
    kinds=("chat", "moderation"),
    error_body=anthropic_error,
    error_event=anthropic_error_event,
)
