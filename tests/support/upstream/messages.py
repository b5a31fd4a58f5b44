"""``POST /v1/messages`` and its token count: Anthropic's shapes as vLLM gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.upstream import chat, tokens
from tests.support.upstream.answers import (
    Answer,
    Events,
    RefusedError,
    event,
    invalid,
    json_answer,
    missing,
)

if TYPE_CHECKING:
    from tests.support.upstream.vllm import Call, Vllm

_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def answer(server: Vllm, call: Call) -> Answer:
    """The server's reply as an Anthropic message, or as its stream of named events."""
    prompt = _prompt(call.body, "messages", "max_tokens")
    if call.body["max_tokens"] == 0:
        problem = "max_tokens must be positive"
        refusal = invalid(
            "value_error",
            "body.max_tokens",
            f"Value error, {problem}",
            "0",
            error=ValueError(problem),
        )
        raise RefusedError(refusal)
    asked = {**call.body, "max_completion_tokens": call.body["max_tokens"]}
    tokens.check_sampling(server, asked)
    tokens.check_length(server, prompt)
    pieces, reason = chat.reply_of(server, call.body)
    if call.body.get("stream"):
        return _stream(call, prompt, pieces, reason)
    return json_answer(
        {
            "id": f"chatcmpl-{call.id}",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "".join(pieces)}],
            "model": call.model,
            "stop_reason": _REASONS[reason],
            "usage": {"input_tokens": prompt, "output_tokens": chat.generated(pieces, reason)},
        }
    )


def count(_server: Vllm, call: Call) -> Answer:
    """``POST /v1/messages/count_tokens``."""
    prompt = _prompt(call.body, "messages")
    context = {"original_input_tokens": prompt}
    return json_answer({"input_tokens": prompt, "context_management": context})


def _prompt(body: dict[str, Any], *needed: str) -> int:
    for name in needed:
        if name not in body:
            raise RefusedError(missing(body, name))
    return len(tokens.encode(tokens.text_of(body["messages"])))


def _stream(call: Call, prompt: int, pieces: list[str], reason: str) -> Answer:
    def named(value: dict[str, Any]) -> bytes:
        return event(value, name=value["type"])

    message: dict[str, Any] = {
        "id": f"chatcmpl-{call.id}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": call.model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": prompt, "output_tokens": 0},
    }
    block = {"type": "text", "text": ""}
    ending = {"stop_reason": _REASONS[reason], "stop_sequence": None}
    counts = {"input_tokens": prompt, "output_tokens": chat.generated(pieces, reason)}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return Events(
        [
            named({"type": "message_start", "message": message}),
            named({"type": "content_block_start", "content_block": block, "index": 0}),
            *(named({"type": "content_block_delta", "delta": d, "index": 0}) for d in deltas),
            named({"type": "content_block_stop", "index": 0}),
            named({"type": "message_delta", "delta": ending, "usage": counts}),
            named({"type": "message_stop"}),
        ]
    )
