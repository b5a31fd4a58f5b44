"""``POST /v1/embeddings`` and rerank, with vectors that depend on the words alone."""

from __future__ import annotations

import base64
import hashlib
import math
import random
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tests.support.samples import sample
from tests.support.upstream import tokens
from tests.support.upstream.answers import (
    Answer,
    RefusedError,
    Whole,
    json_answer,
    missing,
    vllm_error,
)

if TYPE_CHECKING:
    from tests.support.upstream.vllm import Call, Vllm


def answer(server: Vllm, call: Call) -> Answer:
    """One unit vector per input; texts that share words are near each other."""
    inputs = _inputs(call.body)
    encoding = call.body.get("encoding_format") or "float"
    _check(server, call, inputs, encoding)
    data = [
        {"index": index, "object": "embedding", "embedding": _encoded(server, text, encoding)}
        for index, text in enumerate(inputs)
    ]
    counts = _usage(sum(_length(text) for text in inputs))
    details = {
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    return json_answer(
        {
            "id": f"embd-{call.id}",
            "object": "list",
            "created": call.created,
            "model": call.model,
            "data": data,
            "usage": {**counts, **details},
        }
    )


def rerank(server: Vllm, call: Call) -> Answer:
    """Documents by their cosine with the query, the best first."""
    body = call.body
    for name in ("query", "documents"):
        if name not in body:
            raise RefusedError(missing(body, name))
    texts = [text if isinstance(text, str) else text["text"] for text in body["documents"]]
    query = vector(body["query"], server.dimensions)
    scores = [_cosine(query, vector(text, server.dimensions)) for text in texts]
    best_first = sorted(range(len(texts)), key=lambda index: -scores[index])
    results = [
        {
            "index": index,
            "document": {"text": texts[index], "multi_modal": None},
            "relevance_score": scores[index],
        }
        for index in best_first
    ]
    length = sum(_length(text) + _length(body["query"]) for text in texts)
    return json_answer(
        {
            "id": f"score-{call.id}",
            "model": call.model,
            "usage": _usage(length),
            "results": results[: body.get("top_n") or len(results)],
        }
    )


@lru_cache(maxsize=4096)
def vector(text: str, dimensions: int) -> tuple[float, ...]:
    """The unit vector of a text: the same in every process."""
    total = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        total = [a + b for a, b in zip(total, _of_word(word, dimensions), strict=True)]
    length = math.sqrt(sum(value * value for value in total)) or 1.0
    return tuple(value / length for value in total)


def _cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@lru_cache(maxsize=4096)
def _of_word(word: str, dimensions: int) -> tuple[float, ...]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    numbers = random.Random(seed)
    return tuple(numbers.gauss(0, 1) for _ in range(dimensions))


def _inputs(body: dict[str, Any]) -> list[str]:
    if "input" not in body:
        raise RefusedError(missing(body, "input"))
    inputs = body["input"]
    if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)):
        inputs = [inputs]
    if not inputs:
        raise RefusedError(vllm_error(400, "You must pass at least one prompt"))
    return [one if isinstance(one, str) else tokens.decode(one) for one in inputs]


def _check(server: Vllm, call: Call, inputs: list[str], encoding: str) -> None:
    if (dimensions := call.body.get("dimensions")) is not None:
        message = (
            f"Model '{call.model}' does not support Matryoshka embeddings;"
            f" dimensions must be unset (received dimensions={dimensions})."
        )
        raise RefusedError(vllm_error(400, message))
    if encoding not in ("float", "base64"):
        raise RefusedError(Whole(400, sample("emb-bad-encoding").body))
    most = server.max_model_len * 18  # characters that could still be few enough tokens
    for text in inputs:
        if len(text) > most and "truncate_prompt_tokens" not in call.body:
            message = (
                f"This model's maximum context length is {server.max_model_len} tokens. However,"
                f" your prompt contains {len(text)} characters (more than {most} characters, which"
                f" is the upper bound for {server.max_model_len} input tokens). Please reduce the"
                f" length of the input prompt. (parameter=input_text, value={len(text)})"
            )
            raise RefusedError(vllm_error(400, message, param="input_text"))


def _encoded(server: Vllm, text: str, encoding: str) -> list[float] | str:
    numbers = vector(text, server.dimensions)
    packed = struct.pack(f"<{len(numbers)}f", *numbers)
    if encoding == "base64":
        return base64.b64encode(packed).decode()
    return list(struct.unpack(f"<{len(numbers)}f", packed))


def _length(text: str) -> int:
    return len(tokens.encode(text)) + 2  # with the marks at both ends


def _usage(length: int) -> dict[str, int]:
    return {"prompt_tokens": length, "total_tokens": length}
