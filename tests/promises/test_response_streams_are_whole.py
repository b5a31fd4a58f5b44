"""Whatever happens in a response, its stream is whole: each event is of OpenAI's types, each item
that begins ends, what came piece by piece is what is there in the end, and the end is the response
that is stored and that callers without a stream get."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.response_streams import events_of, strict_event, whole_stream
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.answers import error_event
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

MODEL = "fake-chat"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"]}
PARIS = ("get_weather", {"city": "Paris"})
OSLO = ("get_weather", {"city": "Oslo"})
LAMP = ("file_search", {"query": "lamp lighthouse"})
RESULTS = ["file_search_call.results"]
SLOW = 'Some words with "quotes", a \\ and an \u00e9mile 😀.\n\nAnd more.'


async def resets(exchange: Exchange) -> None:
    exchange.reset()


async def closes(exchange: Exchange) -> None:
    exchange.close()


async def fails(exchange: Exchange) -> None:
    await exchange.chunk(error_event())
    await exchange.chunk(b"data: [DONE]\n\n")
    await exchange.end_stream()


async def babbles(exchange: Exchange) -> None:
    await exchange.chunk(b"data: {]\n\n")
    await exchange.end_stream()


@dataclass
class Scenario:
    """What the model says, what is asked, and what the answer is then like."""

    turns: list[Said]
    kinds: list[str]
    asked: dict[str, Any] = field(default_factory=dict)
    status: str = "completed"
    reason: str | None = None


def said(*turns: Said, kinds: str, status: str = "completed", reason: Any = None, **asked: Any):
    return Scenario(list(turns), kinds.split(), asked, status, reason)


TOOLS = {"tools": [WEATHER]}
SEARCHING = {"tools": [SEARCH, WEATHER]}
SCENARIOS: dict[str, Scenario] = {
    "text": said(Said(SLOW), kinds="message"),
    "reasoning and text": said(
        Said("Yes.", reasoning="Is it? I think."), kinds="reasoning message"
    ),
    "encrypted reasoning": said(
        Said("Yes.", reasoning="Is it?"),
        kinds="reasoning message",
        include=["reasoning.encrypted_content"],
    ),
    "log probabilities": said(
        Said("Yes, it is."),
        kinds="message",
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    ),
    "a function": said(Said(calls=[PARIS]), kinds="function_call", **TOOLS),
    "a function without arguments": said(
        Said(calls=[("get_weather", "")]), kinds="function_call", **TOOLS
    ),
    "functions": said(Said(calls=[PARIS, OSLO]), kinds="function_call function_call", **TOOLS),
    "text and a function": said(
        Said("Let me see.", calls=[PARIS]), kinds="message function_call", **TOOLS
    ),
    "reasoning, text and functions": said(
        Said("Let me see.", "I need it.", [PARIS, OSLO]),
        kinds="reasoning message function_call function_call",
        **TOOLS,
    ),
    "space and a function": said(Said("\n\n", calls=[PARIS]), kinds="function_call", **TOOLS),
    "a named function": said(
        Said(calls=[PARIS], finish="stop"),
        kinds="function_call",
        **TOOLS,
        tool_choice={"type": "function", "name": "get_weather"},
    ),
    "nothing": said(Said(), kinds="message"),
    "only space": said(Said(" \n"), kinds="message"),
    "cut in text": said(
        Said("It is", finish="length"),
        kinds="message",
        status="incomplete",
        reason="max_output_tokens",
    ),
    "cut in reasoning": said(
        Said(reasoning="Well, if", finish="length"),
        kinds="reasoning",
        status="incomplete",
        reason="max_output_tokens",
    ),
    "cut in arguments": said(
        Said(calls=[("get_weather", '{"city": "Pa')], finish="length"),
        kinds="function_call",
        status="incomplete",
        reason="max_output_tokens",
        **TOOLS,
    ),
    "cut behind a search": said(
        Said(calls=[LAMP, ("get_weather", '{"city": "Pa')], finish="length"),
        kinds="file_search_call function_call",
        status="incomplete",
        reason="max_output_tokens",
        **SEARCHING,
    ),
    "cut before a word": said(
        Said(finish="length"), kinds="message", status="incomplete", reason="max_output_tokens"
    ),
    "filtered": said(
        Said("It is", finish="content_filter"),
        kinds="message",
        status="incomplete",
        reason="content_filter",
    ),
    "a search": said(
        Said(calls=[LAMP]),
        Said("The lamp of the lighthouse turns at night."),
        kinds="file_search_call message",
        **SEARCHING,
    ),
    "a search with its results": said(
        Said("Let me look.", "Look it up.", [LAMP]),
        Said("The lamp of the lighthouse turns at night. Oil is there.", "Found it."),
        kinds="reasoning message file_search_call reasoning message",
        **SEARCHING,
        include=RESULTS,
    ),
    "two searches at once": said(
        Said(calls=[LAMP, ("file_search", {"query": "oil"})]),
        Said("Yes."),
        kinds="file_search_call file_search_call message",
        **SEARCHING,
    ),
    "a search without a query": said(
        Said(calls=[("file_search", '{"q": ')]),
        Said("Sorry."),
        kinds="file_search_call message",
        **SEARCHING,
    ),
    "a search and a function": said(
        Said(calls=[LAMP, PARIS]), kinds="file_search_call function_call", **SEARCHING
    ),
    "a search, then a function": said(
        Said(calls=[LAMP]),
        Said("So.", calls=[PARIS]),
        kinds="file_search_call message function_call",
        **SEARCHING,
    ),
    "an unknown tool": said(
        Said(calls=[("nope", {"a": 1})]), Said("Then not."), kinds="message", **TOOLS
    ),
    "too many turns": said(
        Said(calls=[LAMP]),
        kinds="file_search_call file_search_call",
        status="incomplete",
        reason="max_messages",
        max_infer_iters=2,
        **SEARCHING,
    ),
}
BROKEN: dict[str, Scenario] = {
    f"{where}, then it {breaks.__name__}": said(
        *before,
        Said(**turn, breaks=breaks),
        kinds=kinds,
        status="failed",
        **SEARCHING,
    )
    for where, before, turn, kinds in (
        ("text", [], {"text": "The capital of"}, "message"),
        ("reasoning", [], {"reasoning": "Is it"}, "reasoning"),
        ("space", [Said(calls=[LAMP])], {"text": "\n"}, "file_search_call"),
        (
            "arguments",
            [],
            {"text": "So.", "calls": [PARIS, ("get_weather", '{"ci')]},
            "message function_call function_call",
        ),
        ("a search", [], {"calls": [LAMP, ("get_weather", "")]}, "file_search_call function_call"),
        ("a second turn", [Said(calls=[LAMP])], {"text": "The"}, "file_search_call message"),
        ("an empty second turn", [Said(calls=[LAMP])], {}, "file_search_call"),
    )
    for breaks in (resets, closes, fails, babbles)
}


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([MODEL]) as server:
        yield server


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-embedding"], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(
    request: pytest.FixtureRequest,
    upstream: FakeVllm,
    embedding: FakeVllm,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[InProcessGateway]:
    folder: Path = tmp_path_factory.mktemp("streams")
    async with InProcessGateway(
        discover=[upstream.url, embedding.url],
        models=[MODEL, "fake-embedding"],
        server={"profile": request.param},
        routing={"breaker_failures": 10_000},  # a probe would take a turn of the script
        data_dir=str(folder),
    ) as gateway:
        state = gateway.application.state
        shelf = Shelf(state.database, state.index)
        await shelf.open()
        await shelf.put("file-lamp", ["the lamp of the lighthouse turns at night", "oil is there"])
        yield gateway


@pytest.fixture
async def http(gateway: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def ask(http: httpx.AsyncClient, upstream: FakeVllm) -> Ask:
    """Makes the response of a scenario."""

    async def make(scenario: Scenario, behave: Any = None, **more: Any) -> httpx.Response:
        upstream.behave(CHAT, behave or Script(*scenario.turns))
        body = {"model": MODEL, "input": "hi", **scenario.asked, **more}
        return await http.post("/v1/responses", json=body)

    return make


def without_chance(response: dict[str, Any]) -> dict[str, Any]:
    """The response without what differs from one to the next: ids and times."""
    items = [
        {k: v for k, v in one.items() if k not in ("id", "call_id")} for one in response["output"]
    ]
    return {
        **{k: v for k, v in response.items() if k not in ("id", "created_at", "completed_at")},
        "output": items,
    }


@pytest.mark.parametrize("name", [*SCENARIOS, *BROKEN])
async def test_every_stream_is_whole(http: httpx.AsyncClient, ask: Ask, name: str) -> None:
    """All that a stream promises, and that the response can be read at once when it has ended."""
    scenario = (SCENARIOS | BROKEN)[name]
    answer = await ask(scenario, stream=True)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    final = whole_stream(events_of(answer.content))
    stored = await http.get(
        f"/v1/responses/{final['id']}", params={"include[]": scenario.asked.get("include", [])}
    )
    assert stored.json() == final
    assert [item["type"] for item in final["output"]] == scenario.kinds
    assert final["status"] == scenario.status
    assert (final["incomplete_details"] or {}).get("reason") == scenario.reason
    assert (final["error"] is not None) == (scenario.status == "failed")
    assert (final["completed_at"] is not None) == (scenario.status == "completed")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_stream_ends_in_what_others_get_at_once(ask: Ask, name: str) -> None:
    """With and without a stream the response is the same."""
    streamed = events_of((await ask(SCENARIOS[name], stream=True)).content)[-1]["response"]
    whole = await ask(SCENARIOS[name])
    assert whole.status_code == 200, whole.text
    assert without_chance(whole.json()) == without_chance(streamed)


@pytest.mark.parametrize("name", BROKEN)
async def test_without_a_stream_a_break_is_an_error(
    http: httpx.AsyncClient, ask: Ask, name: str
) -> None:
    """Nobody has the id of such a response, so that nothing is kept of it."""
    before = (await http.get("/v1/responses")).json()["data"]
    answer = await ask(BROKEN[name])
    assert answer.status_code in (500, 502), answer.text
    assert (await http.get("/v1/responses")).json()["data"] == before


async def test_an_item_that_was_cut_off_is_incomplete(ask: Ask) -> None:
    """Its status says so, and what had come of it is there."""
    for name in ("cut in text", "cut in arguments", "cut behind a search"):
        final = events_of((await ask(SCENARIOS[name], stream=True)).content)[-1]["response"]
        assert final["output"][-1]["status"] == "incomplete", name
    for broken in BROKEN.values():
        final = events_of((await ask(broken, stream=True)).content)[-1]["response"]
        if broken.turns[-1].text.strip() and not broken.turns[-1].calls:
            assert final["output"][-1]["content"][0]["text"] == broken.turns[-1].text
            assert final["output"][-1]["status"] == "incomplete"


OVERLOADS = {
    "at once": faults.unavailable(),
    "in the first event": faults.overloaded(),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("overload", OVERLOADS)
async def test_an_overload_is_a_status_on_which_clients_try_again(
    gateway: InProcessGateway, upstream: FakeVllm, overload: str, *, stream: bool
) -> None:
    """503 with `retry-after`; the SDK's second try then succeeds, unseen by its caller."""
    async with gateway.client() as http:
        upstream.behave(CHAT, OVERLOADS[overload])
        body = {"model": MODEL, "input": "hi", "stream": stream}
        refused(await http.post("/v1/responses", json=body), 503)
    async with openai.AsyncOpenAI(
        base_url=gateway.base_url, api_key="none", max_retries=1
    ) as client:
        upstream.behave(CHAT, OVERLOADS[overload], times=1)
        if stream:
            async with client.responses.stream(model=MODEL, input="hi") as events:
                text = (await events.get_final_response()).output_text
        else:
            text = (await client.responses.create(model=MODEL, input="hi")).output_text
    assert text == "The capital of France is Paris."


async def test_refusals_of_the_model_are_refusals(ask: Ask, upstream: FakeVllm) -> None:
    """A server that says `refusal` has its words in a part of that kind, whatever came before."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    for deltas, kinds in (
        ([{"refusal": "I "}, {"refusal": "won't."}], ["refusal"]),
        ([{"content": "Well. "}, {"refusal": "I won't."}], ["output_text", "refusal"]),
        ([{"refusal": "I won't."}, {"content": "But:"}], ["refusal", "output_text"]),
    ):
        final = await odd(ask, upstream, head, deltas)
        parts = [part for item in final["output"] for part in item["content"]]
        assert [part["type"] for part in parts] == kinds


async def test_thoughts_between_words_are_items_of_their_own(ask: Ask, upstream: FakeVllm) -> None:
    """In the order in which they came, none twice."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    deltas = [{"reasoning": "A?"}, {"content": "A."}, {"reasoning": "B?"}, {"content": "B."}]
    final = await odd(ask, upstream, head, deltas)
    said = [(item["type"], item["content"][0]["text"]) for item in final["output"]]
    assert said == [("reasoning", "A?"), ("message", "A."), ("reasoning", "B?"), ("message", "B.")]


async def odd(
    ask: Ask, upstream: FakeVllm, head: dict[str, Any], deltas: list[dict[str, Any]]
) -> dict[str, Any]:
    """The response to a stream of these deltas, which is whole."""
    chunks = [{**head, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    data = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in chunks)

    async def behave(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(data + b"data: [DONE]\n\n")
        await exchange.end_stream()

    scenario = Scenario([Said()], [])
    answer = await ask(scenario, stream=True, behave=behave)
    return whole_stream(events_of(answer.content))


def test_the_check_can_fail() -> None:
    """Wrong literals, missing fields and unknown events don't pass as the SDK's."""
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "done", "content": []}
    added = {"type": "response.output_item.added", "output_index": 0, "sequence_number": 0}
    strict_event({**added, "item": {**item, "status": "completed"}})
    for wrong in (
        {**added, "item": item},
        {**added, "item": {**item, "status": "completed", "id": None}},
        {"type": "response.output_item.added", "item": {**item, "status": "completed"}},
        {"type": "response.nope", "sequence_number": 0},
    ):
        with pytest.raises(AssertionError):
            strict_event(wrong)
