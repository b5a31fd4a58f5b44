"""A model that says what a test has written for it, turn by turn, in vLLM's chunks.

    upstream.behave(CHAT, Script(
        Said(calls=[("get_weather", {"city": "Paris"})]),
        Said("It is sunny in Paris."),
    ))

The chunks are those of `facts/vllm`'s samples: the role first, one token each, a tool call's name
before its arguments, the finish reason in a chunk of its own, usage last.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.upstream import tokens
from tests.support.upstream.answers import DONE, Events, event, json_answer
from tests.support.upstream.chat import FINGERPRINT, usage
from tests.support.upstream.exchange import Exchange

CHAT = "/v1/chat/completions"
PROMPT_TOKENS = 25


@dataclass
class Said:
    """One turn. A call is a name and its arguments, as an object or as the text itself.

    `finish` is worked out where it isn't given; `before` is awaited after the head and the first
    chunk are out; `between` is a pause after each chunk, in seconds. `breaks` is what happens once
    the words are out, in place of an end.
    """

    text: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[str, Any]] = ()
    finish: str | None = None
    before: Callable[[Exchange], Awaitable[None]] | None = None
    between: float = 0.0
    breaks: Callable[[Exchange], Awaitable[None]] | None = None
    _ids: Any = field(default_factory=lambda: itertools.count(1), repr=False)

    @property
    def reason(self) -> str:
        return self.finish or ("tool_calls" if self.calls else "stop")

    def deltas(self) -> list[dict[str, Any]]:
        """The deltas between the first chunk and the last."""
        made: list[dict[str, Any]] = [{"reasoning": one} for one in tokens.split(self.reasoning)]
        made += [{"content": one} for one in tokens.split(self.text)]
        for index, (name, given) in enumerate(self.calls):
            head = {
                "id": f"chatcmpl-tool-{next(self._ids):016x}",
                "type": "function",
                "index": index,
                "function": {"name": name},
            }
            made.append({"content": None, "tool_calls": [head]})
            arguments = given if isinstance(given, str) else json.dumps(given)
            made += [
                {"content": None, "tool_calls": [{"index": index, "function": {"arguments": one}}]}
                for one in tokens.split(arguments)
            ]
        return made


class Script:
    """Plays its turns, one for each request; the last one again where there are no more.

    `requests` are the bodies that came.
    """

    def __init__(self, *turns: Said) -> None:
        self._turns = turns
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, exchange: Exchange) -> None:
        body = exchange.request.json
        turn = self._turns[min(len(self.requests), len(self._turns) - 1)]
        self.requests.append(body)
        if not body.get("stream"):
            await exchange.send(json_answer(_whole(body, turn)))
            return
        chunks = _chunks(body, turn)
        if turn.breaks is not None:
            await exchange.start_stream()
            await exchange.events(map(event, chunks[: len(turn.deltas()) + 1]))
            await turn.breaks(exchange)
            return
        if turn.before is None and not turn.between:
            await exchange.send(Events([*map(event, chunks), DONE]))
            return
        await exchange.start_stream()
        await exchange.events([event(chunks[0])])
        if turn.before is not None:
            await turn.before(exchange)
        await exchange.events([*map(event, chunks[1:]), DONE], turn.between)
        await exchange.end_stream()


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{time.time_ns():016x}",
        "object": kind,
        "created": int(time.time()),
        "model": body["model"],
    }


def _chunks(body: dict[str, Any], turn: Said) -> list[dict[str, Any]]:
    head = _head(body, "chat.completion.chunk")
    top = body.get("top_logprobs") or 0

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        logprobs = None
        if body.get("logprobs") and delta.get("content"):
            one = {"token": delta["content"], "logprob": -0.5, "bytes": [1]}
            logprobs = {"content": [{**one, "top_logprobs": [one] * top}]}
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**head, "choices": [choice]}

    deltas = turn.deltas()
    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk(delta) for delta in deltas]
    chunks.append(chunk({}, turn.reason))
    if (body.get("stream_options") or {}).get("include_usage"):
        counted = usage(PROMPT_TOKENS, len(deltas) + 1)
        chunks.append({**head, "choices": [], "usage": counted})
    chunks[-1]["system_fingerprint"] = FINGERPRINT
    return chunks


def _whole(body: dict[str, Any], turn: Said) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": turn.text or None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": turn.reasoning or None,
    }
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": f"chatcmpl-tool-{index:016x}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": given if isinstance(given, str) else json.dumps(given),
                },
            }
            for index, (name, given) in enumerate(turn.calls)
        ]
    return {
        **_head(body, "chat.completion"),
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": turn.reason}
        ],
        "usage": usage(PROMPT_TOKENS, len(turn.deltas()) + 1),
        "system_fingerprint": FINGERPRINT,
    }
