"""``POST /v1/chat/completions``: vLLM's JSON and vLLM's stream, key for key."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tests.support.upstream import tokens
from tests.support.upstream.answers import (
    DONE,
    Answer,
    Events,
    RefusedError,
    event,
    invalid,
    json_answer,
    missing,
    vllm_error,
)

if TYPE_CHECKING:
    from tests.support.upstream.vllm import Call, Vllm

FINGERPRINT = "vllm-0.32.0-802e99c3"
_NO_DETAILS = {"prompt_tokens_details": None, "completion_tokens_details": None}


def answer(server: Vllm, call: Call) -> Answer:
    """The server's reply, cut at ``max_tokens``, ``n`` times."""
    prompt = tokens.encode(_checked_text(server, call.body))
    tokens.check_length(server, len(prompt))
    pieces, reason = reply_of(server, call.body)
    if call.body.get("stream"):
        return _stream(call, len(prompt), pieces, reason)
    return _whole(server, call, len(prompt), pieces, reason)


def reply_of(server: Vllm, body: dict[str, Any]) -> tuple[list[str], str]:
    """The reply's tokens and why they end."""
    reply = server.reply if isinstance(server.reply, str) else server.reply(body)
    pieces = tokens.split(reply)
    most = body.get("max_completion_tokens") or body.get("max_tokens") or len(pieces) + 1
    return pieces[:most], "length" if most <= len(pieces) else "stop"


def generated(pieces: list[str], reason: str) -> int:
    """How many tokens were generated: the one that ends a reply counts, though it has no text."""
    return len(pieces) + (reason == "stop")


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts in vLLM's order of keys."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


def _checked_text(server: Vllm, body: dict[str, Any]) -> str:
    if "messages" not in body:
        raise RefusedError(missing(body, "messages"))
    messages = body["messages"]
    if not isinstance(messages, list):
        problem = "Input should be a valid list"
        raise RefusedError(invalid("list_type", "body.messages", problem, str(messages)))
    tokens.check_sampling(server, body)
    if not messages:
        message = (
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
        raise RefusedError(vllm_error(400, message))
    return tokens.text_of(messages)


def _whole(server: Vllm, call: Call, prompt: int, pieces: list[str], reason: str) -> Answer:
    count = call.body.get("n") or 1
    message = {
        "role": "assistant",
        "content": "".join(pieces),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": _logprobs(server, call.body, pieces),
            "finish_reason": reason,
            "stop_reason": None,
            "token_ids": None,
            "routed_experts": None,
        }
        for index in range(count)
    ]
    return json_answer(
        {
            "id": f"chatcmpl-{call.id}",
            "object": "chat.completion",
            "created": call.created,
            "model": call.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {**usage(prompt, generated(pieces, reason) * count), **_NO_DETAILS},
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


def _logprobs(server: Vllm, body: dict[str, Any], pieces: list[str]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    content = []
    for piece in pieces:
        chances = server.chances.get(piece.strip(), {piece: 1.0})
        ranked = sorted(chances.items(), key=lambda one: -one[1])
        own = chances.get(piece, chances.get(piece.strip(), 1.0))
        top = [_chance(*one) for one in ranked[: body.get("top_logprobs") or 0]]
        content.append({**_chance(piece, own), "top_logprobs": top})
    return {"content": content}


def _chance(token: str, probability: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(probability), "bytes": list(token.encode())}


def _stream(call: Call, prompt: int, pieces: list[str], reason: str) -> Answer:
    options = call.body.get("stream_options") or {}
    running = bool(options.get("continuous_usage_stats"))
    indexes = range(call.body.get("n") or 1)
    first = {"role": "assistant", "content": ""}
    done = 0

    def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {
            "id": f"chatcmpl-{call.id}",
            "object": "chat.completion.chunk",
            "created": call.created,
            "model": call.model,
            "choices": choices,
        }
        if running and choices:
            head["usage"] = {**usage(prompt, done), "completion_tokens_details": None}
        return {**head, **more}

    opening = {"prompt_token_ids": None, "prompt_text": None}
    chunks = [chunk([_choice(index, first, None)], **opening) for index in indexes]
    for position, piece in enumerate(pieces, 1):
        cut = reason if reason == "length" and position == len(pieces) else None
        for index in indexes:
            done += 1
            chunks.append(chunk([_ended(index, {"content": piece}, cut)]))
    if reason == "stop":
        for index in indexes:
            done += 1
            chunks.append(chunk([_ended(index, {}, reason)]))
    if options.get("include_usage"):
        chunks.append(chunk([], usage=usage(prompt, done)))
    chunks[-1]["system_fingerprint"] = FINGERPRINT
    return Events([*map(event, chunks), DONE])


def _choice(index: int, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _ended(index: int, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    stop = {"stop_reason": None} if reason else {}
    return {**_choice(index, delta, reason), **stop, "token_ids": None}
