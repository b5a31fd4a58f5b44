"""``POST /v1/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.upstream import chat, tokens
from tests.support.upstream.answers import (
    DONE,
    Answer,
    Events,
    RefusedError,
    event,
    json_answer,
    vllm_error,
)

if TYPE_CHECKING:
    from tests.support.upstream.vllm import Call, Vllm


def answer(server: Vllm, call: Call) -> Answer:
    """The server's reply to each prompt; 16 tokens unless told otherwise."""
    prompts = _prompts(call.body)
    tokens.check_sampling(server, call.body)
    tokens.check_length(server, max(map(len, prompts), default=0))
    pieces, reason = chat.reply_of(server, {"max_tokens": 16, **call.body})
    length = sum(map(len, prompts))
    if call.body.get("stream"):
        return _stream(call, len(prompts), length, pieces, reason)
    choices = [_choice(index, "".join(pieces), reason) for index in range(len(prompts))]
    counts = chat.usage(length, chat.generated(pieces, reason) * len(prompts))
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return json_answer(
        {
            "id": f"cmpl-{call.id}",
            "object": "text_completion",
            "created": call.created,
            "model": call.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": chat.FINGERPRINT,
            "usage": {**counts, **details},
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


def _prompts(body: dict[str, Any]) -> list[list[int]]:
    if "prompt" not in body:
        message = "Either prompt or prompt_embeds must be provided and non-empty."
        raise RefusedError(vllm_error(400, f"{message} (parameter=prompt)", param="prompt"))
    prompt = body["prompt"]
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    return [tokens.encode(one) if isinstance(one, str) else one for one in prompt]


def _choice(index: int, text: str, reason: str) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": reason,
        "stop_reason": None,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "routed_experts": None,
    }


def _stream(call: Call, prompts: int, length: int, pieces: list[str], reason: str) -> Answer:
    head = {
        "id": f"cmpl-{call.id}",
        "object": "text_completion",
        "created": call.created,
        "model": call.model,
    }
    texts = pieces if reason == "length" else [*pieces, ""]
    chunks: list[dict[str, Any]] = []
    for position, text in enumerate(texts, 1):
        ended = reason if position == len(texts) else None
        for index in range(prompts):
            choice = {
                "index": index,
                "text": text,
                "logprobs": None,
                "finish_reason": ended,
                "stop_reason": None,
                "prompt_token_ids": None,
                "token_ids": None,
            }
            chunks.append({**head, "choices": [choice]})
    if (call.body.get("stream_options") or {}).get("include_usage"):
        counts = chat.usage(length, chat.generated(pieces, reason) * prompts)
        chunks.append({**head, "choices": [], "usage": counts})
    chunks[-1]["system_fingerprint"] = chat.FINGERPRINT
    return Events([*map(event, chunks), DONE])
