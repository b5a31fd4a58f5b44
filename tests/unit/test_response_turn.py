"""A turn of the model becomes items, whichever way its chunks come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.errors import UpstreamError
from gateway.responses.run import Run
from gateway.responses.schemas import CreateResponse
from gateway.responses.stream import ResponseStream
from gateway.responses.tool_definitions import Tool
from gateway.responses.toolbox import Toolbox
from gateway.responses.turn import Turn

pytestmark = pytest.mark.anyio

TOOLS = msgspec.convert(
    [{"type": "function", "name": "f"}, {"type": "file_search", "vector_store_ids": ["vs_1"]}],
    list[Tool],
)


class Seen:
    """A sink that keeps what it is told, as it was told it."""

    begun = True

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(json.loads(msgspec.json.encode(event)))

    @property
    def kinds(self) -> list[str]:
        return [one["type"].removeprefix("response.") for one in self.events]


class Made:
    """A turn, what it has told, and what has come of it."""

    def __init__(self, *, check: Any = None, calls_left: int = 9, most_calls: int = 9) -> None:
        self.seen = Seen()
        self.run = Run("resp_1", CreateResponse(model="m"))
        self.turn = Turn(
            ResponseStream(self.run, self.seen),
            Toolbox(TOOLS, {}, approval_is_usual=False),
            cite=lambda _: [],
            check=check,
            calls_left=calls_left,
            most_calls=most_calls,
        )

    async def read(self, *chunks: Any) -> None:
        async def events() -> AsyncIterator[bytes]:
            for one in chunks:
                yield one if isinstance(one, bytes) else json.dumps(one).encode()

        await self.turn.read(events())

    @property
    def said(self) -> list[Any]:
        """The texts of messages and thoughts, and the arguments of calls."""
        return [
            one["arguments"]
            if "arguments" in one
            else "".join(part.get("text", part.get("refusal")) for part in one["content"])
            for one in self.run.output
            if "arguments" in one or "content" in one
        ]


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(index: int, name: str | None = None, arguments: str | None = None, **more: Any) -> Any:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "function": function, **more}


async def test_chunks_may_hold_several_things() -> None:
    """Some servers send all calls at once, thoughts and words together, or leave things out."""
    made = Made()
    await made.read(
        {},
        {"choices": []},
        chunk(role="assistant", content=None),
        chunk(reasoning_content="Hm.", content="Well. ", tool_calls=None),
        chunk(
            tool_calls=[
                call(0, "f", '{"a":1}', id="1"),
                call(1, "f", "{}", id="2"),
                {"index": 2, "id": "3"},
            ]
        ),
        chunk("tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}, "extra": [1]},
    )
    assert made.said == ["Hm.", "Well. ", '{"a":1}', "{}"]
    assert [one.call_id for one in made.turn.calls] == ["1", "2"]
    assert made.turn.usage
    assert (made.turn.usage.input, made.turn.usage.output) == (3, 4)
    message = made.turn.message()
    assert (message["reasoning"], message["content"]) == ("Hm.", "Well. ")
    assert [one["id"] for one in message["tool_calls"]] == ["1", "2"]


async def test_a_name_that_comes_again_begins_no_other_call() -> None:
    """Old servers repeat it; a call without an id gets one, and one without a name is none."""
    made = Made()
    await made.read(
        chunk(tool_calls=[call(0, "f", "")]),
        chunk(tool_calls=[call(0, "f", '{"a"')]),
        chunk(tool_calls=[call(0, None, ":1}")]),
        chunk(tool_calls=[call(1, None, "lost")]),
        chunk("stop"),
    )
    assert made.said == ['{"a":1}']
    assert made.turn.calls[0].call_id.startswith("call_")


async def test_words_after_a_call_are_another_message() -> None:
    """In the order in which they came."""
    made = Made()
    await made.read(
        chunk(content="a"),
        chunk(tool_calls=[call(0, "f", "{}")]),
        chunk(content="b"),
        chunk("stop"),
    )
    assert [one["type"] for one in made.run.output] == ["message", "function_call", "message"]
    assert made.turn.message()["content"] == "ab"


@pytest.mark.parametrize(
    "data", [b"{]", b"\xff", b"[]", b'{"choices": [5]}', b"[" * 5000, b'{"usage": "x"}']
)
async def test_what_is_no_chunk_is_the_servers_fault(data: bytes) -> None:
    """Not the caller's, and no fault of the gateway's."""
    with pytest.raises(UpstreamError):
        await Made().read(chunk(content="a"), data)


async def test_a_call_that_is_over_stays_as_it_was_told() -> None:
    """A server that writes two at once would leave one cut off without anybody's notice."""
    first, second = call(0, "f", '{"a"'), call(1, "f", "{}")
    with pytest.raises(UpstreamError):
        await Made().read(
            chunk(tool_calls=[first]),
            chunk(tool_calls=[second]),
            chunk(tool_calls=[call(0, None, ":1}")]),
        )


async def test_leaving_ends_what_was_begun() -> None:
    """Once, and without a message where nothing was said."""
    made = Made()
    with pytest.raises(UpstreamError):
        await made.read(chunk(content="The capital"), b"{]")
    await made.turn.leave()
    await made.turn.leave()
    assert made.seen.kinds[-3:] == ["output_text.done", "content_part.done", "output_item.done"]
    assert made.run.output[0]["status"] == "incomplete"
    assert made.said == ["The capital"]
    silent = Made()
    await silent.turn.leave()
    assert silent.seen.events == []


async def refuses(text: str) -> str | None:
    return "I can't." if "bomb" in text else None


async def test_what_is_judged_is_shown_when_it_has_been() -> None:
    """All at once; in place of what may not be shown stands the refusal."""
    made = Made(check=refuses)
    await made.read(chunk(content="All "), chunk(content="well."), chunk("stop"))
    assert made.seen.kinds.count("output_text.delta") == 1
    assert made.said == ["All well."]
    made = Made(check=refuses)
    await made.read(chunk(content="A bo"), chunk(content="mb."), chunk("stop"))
    assert made.run.output[0]["content"] == [{"type": "refusal", "refusal": "I can't."}]
    assert "mb." not in json.dumps(made.seen.events)


async def test_what_was_not_judged_is_never_shown() -> None:
    """Also where the stream breaks off before it could be."""
    made = Made(check=refuses)
    with pytest.raises(UpstreamError):
        await made.read(chunk(content="A bomb"), b"{]")
    await made.turn.leave()
    assert made.seen.events == []


async def test_calls_are_counted() -> None:
    """Those of hosted tools by what is left, all by what one turn may have."""
    search = [call(n, "file_search", '{"query":"a"}') for n in range(3)]
    made = Made(calls_left=1)
    await made.read(chunk(tool_calls=search), chunk("tool_calls"))
    assert [one.refused is None for one in made.turn.calls] == [True, False, False]
    assert len(made.run.output) == 1
    made = Made(most_calls=2)
    await made.read(chunk(tool_calls=search), chunk("tool_calls"))
    assert [one.refused is None for one in made.turn.calls] == [True, True, False]


async def test_log_probabilities_come_with_held_back_space() -> None:
    """Space at the beginning waits for a word, and its tokens with it."""
    made = Made()

    def token(text: str) -> Any:
        one = {"token": text, "logprob": -1, "bytes": None, "top_logprobs": None}
        choice = {"delta": {"content": text}, "logprobs": {"content": [one]}}
        return {"choices": [choice]}

    await made.read(token("\n"), token(" "), token("a"), token("b"), chunk("stop"))
    deltas = [one for one in made.seen.events if one["type"].endswith("text.delta")]
    assert [one["delta"] for one in deltas] == ["\n a", "b"]
    assert [len(one["logprobs"]) for one in deltas] == [3, 1]
    assert len(made.run.output[0]["content"][0]["logprobs"]) == 4
    assert deltas[0]["logprobs"][0]["bytes"] == []
