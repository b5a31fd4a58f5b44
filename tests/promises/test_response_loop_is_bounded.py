"""A response ends, whatever the model does: all of it has a bound, which the answer tells of.

Turns, calls, tokens, time, arguments and what it builds on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.responses.calls import MAX_ARGUMENTS
from gateway.responses.inputs import MAX_ATTACHMENTS
from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.response_streams import events_of, whole_stream
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm
from tests.support.upstream.answers import event
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

CREATE = "/v1/responses"
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"]}
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
LAMP = ("file_search", {"query": "lamp"})
PNG = "data:image/png;base64,iVBORw0KGgo="
BOUNDS = {
    "max_iterations": 3,
    "most_iterations": 5,
    "max_tool_calls": 4,
    "max_context_items": 10,
}


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-embedding"], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module")
async def chat() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-chat"]) as server:
        yield server


@pytest.fixture(scope="module")
async def gateway(
    chat: FakeVllm, embedding: FakeVllm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[chat.url, embedding.url],
        models=["fake-chat", "fake-embedding"],
        data_dir=str(tmp_path_factory.mktemp("bounds")),
        responses=BOUNDS,
    ) as gateway:
        state = gateway.application.state
        shelf = Shelf(state.database, state.index)
        await shelf.open()
        await shelf.put("file-lamp", ["the lamp of the lighthouse turns at night"])
        yield gateway


@pytest.fixture
async def http(gateway: InProcessGateway, chat: FakeVllm) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client
    chat.reset()


async def ask(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """The response, which was made without an error."""
    body = {"model": "fake-chat", "input": "hi", "tools": [SEARCH], **fields}
    answer = await http.post(CREATE, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def kinds(response: dict[str, Any]) -> list[str]:
    return [item["type"] for item in response["output"]]


@pytest.mark.parametrize(
    ("asked", "turns"),
    [
        ({}, 3),
        ({"max_infer_iters": 2}, 2),
        ({"max_infer_iters": 4}, 4),
        ({"max_infer_iters": 99}, 5),
    ],
)
async def test_turns_are_counted(http, chat, asked, turns):
    """A model that never stops calling gets as many as the request says, or the settings."""
    script = Script(Said(calls=[LAMP]))
    chat.behave(CHAT, script)
    response = await ask(http, **asked, max_tool_calls=None)
    assert len(script.requests) == turns
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_messages"}


@pytest.mark.parametrize(("asked", "calls"), [({}, 4), ({"max_tool_calls": 2}, 2)])
async def test_calls_of_hosted_tools_are_counted(http, chat, asked, calls):
    """Once they are used up the model has no tools, is told so, and answers."""
    script = Script(Said(calls=[LAMP, LAMP, LAMP]), Said(calls=[LAMP, LAMP, LAMP]), Said("Enough."))
    chat.behave(CHAT, script)
    response = await ask(http, **asked)
    assert kinds(response) == ["file_search_call"] * calls + ["message"]
    assert response["status"] == "completed"
    last = script.requests[-1]
    assert last["tool_choice"] == "none"
    told = [one["content"] for one in last["messages"] if one["role"] == "tool"]
    assert len(told) == 6
    assert sum("No more calls of tools are allowed" in one for one in told) == 6 - calls


async def test_the_callers_functions_are_not_counted(http, chat):
    """`max_tool_calls` is about what the gateway runs."""
    call = ("get_weather", {"city": "Paris"})
    chat.behave(CHAT, Script(Said(calls=[LAMP, call, call])))
    response = await ask(http, tools=[SEARCH, WEATHER], max_tool_calls=1)
    assert kinds(response) == ["file_search_call", "function_call", "function_call"]


async def test_tokens_are_counted_over_all_turns(http, chat):
    """Each turn gets what the earlier ones have left; none is asked for when nothing is left."""
    script = Script(Said("Let me see now.", calls=[LAMP]))
    chat.behave(CHAT, script)
    response = await ask(http, max_output_tokens=30)
    used = response["usage"]["output_tokens"] // len(script.requests)
    given = [one["max_completion_tokens"] for one in script.requests]
    assert given == [30 - used * n for n in range(len(given))]
    assert given[-1] <= used
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_one_call_at_a_time_where_the_caller_wants_that(http, chat):
    """The model server is told; what the model calls beside the first is refused, not run."""
    script = Script(Said(calls=[LAMP, LAMP]), Said("Done."))
    chat.behave(CHAT, script)
    response = await ask(http, parallel_tool_calls=False)
    assert script.requests[0]["parallel_tool_calls"] is False
    assert kinds(response) == ["file_search_call", "message"]
    told = [one["content"] for one in script.requests[1]["messages"] if one["role"] == "tool"]
    assert "Only one call" in told[1]
    chat.behave(CHAT, Script(Said(calls=[("get_weather", {}), ("get_weather", {})])))
    response = await ask(http, tools=[WEATHER], parallel_tool_calls=False)
    assert kinds(response) == ["function_call"]


async def test_a_model_may_not_call_without_an_end_in_one_turn(http, chat):
    """Calls beyond the bound are refused, with a reason that is true."""
    script = Script(Said(calls=[("get_weather", {})] * 6 + [LAMP]))
    chat.behave(CHAT, script)
    response = await ask(http, tools=[WEATHER, SEARCH])
    assert kinds(response) == ["function_call"] * 4
    chat.behave(CHAT, script := Script(Said(calls=[("nope", {})] * 4 + [LAMP]), Said("So.")))
    assert kinds(await ask(http)) == ["message"]
    told = [one["content"] for one in script.requests[1]["messages"] if one["role"] == "tool"]
    assert told[-1] == "Error: Only 4 calls may be made at once."


async def test_a_model_that_calls_what_there_is_not_is_stopped(http, chat):
    """It is told so, turn after turn, until the turns are over; the caller sees no such call."""
    script = Script(Said(calls=[("nope", {"a": 1})]))
    chat.behave(CHAT, script)
    response = await ask(http)
    assert (kinds(response), response["status"]) == ([], "incomplete")
    assert len(script.requests) == 3
    told = script.requests[-1]["messages"][-1]["content"]
    assert told == "Error: There is no tool named 'nope'."


@pytest.mark.alone
async def test_time_is_limited(upstream, tmp_path):
    """504 without a stream; a stream fails, and all that it began is ended."""
    upstream.behave(CHAT, Script(Said("One two three four five six seven eight", between=0.3)))
    body = {"model": "fake-chat", "input": "hi"}
    async with (
        InProcessGateway(
            discover=[upstream.url],
            models=["fake-chat"],
            data_dir=str(tmp_path),
            responses={"timeout_seconds": 1.0},
        ) as quick,
        quick.client() as http,
    ):
        error = refused(await http.post(CREATE, json=body), 504)
        assert error["code"] == "response_timeout"
        answer = await http.post(CREATE, json={**body, "stream": True})
    final = whole_stream(events_of(answer.content))
    assert final["status"] == "failed"
    assert final["error"]["code"] == "server_error"
    assert "1 s" in final["error"]["message"]
    assert final["output"][0]["status"] == "incomplete"


async def test_arguments_have_an_end(http, chat):
    """A model that writes on and on in a call is given up, and the model server with it."""
    gone = asyncio.Event()

    async def writes_on(exchange: Exchange) -> None:
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake-chat"}

        def chunk(**function: str) -> bytes:
            call = {"index": 0, "id": "c1", "function": function}
            return event({**head, "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})

        await exchange.start_stream()
        await exchange.chunk(chunk(name="get_weather"))
        try:
            for _ in range(1000):
                await exchange.chunk(chunk(arguments=" " * (MAX_ARGUMENTS // 8)))
                await asyncio.sleep(0)
            await exchange.hang()
        finally:
            gone.set()

    chat.behave(CHAT, writes_on)
    body = {"model": "fake-chat", "input": "hi", "tools": [WEATHER]}
    assert "arguments" in refused(await http.post(CREATE, json=body), 502)["message"]
    await asyncio.wait_for(gone.wait(), 20)


async def test_what_a_response_builds_on_is_limited(http, chat):
    """A chain of responses with too many items is refused before a model is asked."""
    chat.behave(CHAT, script := Script(Said("So.")))
    last: str | None = None
    for _ in range(5):
        last = (await ask(http, previous_response_id=last))["id"]
    asked = len(script.requests)
    await ask(http, previous_response_id=last)
    last = (await ask(http, previous_response_id=last))["id"]
    body = {"model": "fake-chat", "input": "hi", "previous_response_id": last}
    for path in (CREATE, f"{CREATE}/input_tokens", f"{CREATE}/compact"):
        error = refused(await http.post(path, json=body), 400)
        assert error["param"] == "previous_response_id"
        assert error["code"] == "context_length_exceeded"
    assert len(script.requests) == asked + 2


async def test_the_items_of_one_request_are_limited(http, chat):
    """As are those of the input itself: a caller can't get around the bound by sending them."""
    chat.behave(CHAT, Script(Said("So.")))
    items = [{"role": "user", "content": str(n)} for n in range(11)]
    error = refused(await http.post(CREATE, json={"model": "fake-chat", "input": items}), 400)
    assert error["param"] == "input"
    await ask(http, input=items[:10])


async def test_images_and_files_are_limited(http):
    """Their number, for all messages together."""
    parts = [
        {"type": "input_image", "image_url": f"{PNG[:-4]}{n:03}0="}
        for n in range(MAX_ATTACHMENTS + 1)
    ]
    body = {"model": "fake-chat", "input": [{"role": "user", "content": parts}]}
    assert refused(await http.post(CREATE, json=body), 400)["param"] == "input"


async def test_results_fit_into_a_small_context(embedding, tmp_path):
    """What a search has found is cut to what the model can read."""
    async with (
        FakeVllm(["small"], max_model_len=300) as small,
        InProcessGateway(
            discover=[small.url, embedding.url],
            models=["small", "fake-embedding"],
            data_dir=str(tmp_path),
        ) as gateway,
    ):
        state = gateway.application.state
        shelf = Shelf(state.database, state.index)
        await shelf.open()
        await shelf.put("file-lamp", [f"lamp {n} " + "shines " * 40 for n in range(8)])
        small.behave(CHAT, script := Script(Said(calls=[LAMP]), Said("It shines.")))
        async with gateway.client() as http:
            answer = await http.post(
                CREATE,
                json={
                    "model": "small",
                    "input": "hi",
                    "tools": [SEARCH],
                    "include": ["file_search_call.results"],
                },
            )
    told = script.requests[1]["messages"][-1]["content"]
    assert 0 < len(told) <= 300 * 3 / 2 + 10
    assert len(answer.json()["output"][0]["results"]) == 8
    assert json.dumps(answer.json()).count("file_citation") == 1
