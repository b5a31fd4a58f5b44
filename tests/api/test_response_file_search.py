"""File search in responses, through OpenAI's client on Milvus Lite: what is found, what is shown of
it, and what an answer cites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.support.inprocess import InProcessGateway
from tests.support.stored import Shelf
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

MODEL = "fake-chat"
RESULTS: Any = "file_search_call.results"
LAMP = "The lamp of the lighthouse turns at night."
OIL = "Oil for the lamp is kept below the stairs."
BOAT = "The boat leaves the harbour at noon."
QUERY = ("file_search", {"query": "lamp lighthouse oil"})


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([MODEL]) as server:
        yield server


@pytest.fixture(scope="module")
async def embedding() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(["fake-embedding"], kind="embedding") as server:
        yield server


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(
    request: pytest.FixtureRequest,
    server: FakeVllm,
    embedding: FakeVllm,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[server.url, embedding.url],
        models=[MODEL, "fake-embedding"],
        server={"profile": request.param},
        data_dir=str(tmp_path_factory.mktemp("file-search")),
    ) as gateway:
        state = gateway.application.state
        lamps = Shelf(state.database, state.index, store_id="vs_lamps")
        await lamps.open()
        await lamps.put("file-lamp", [LAMP, OIL], attributes={"year": 1900})
        await lamps.put("file-night", ["The lighthouse is dark by day."], attributes={"year": 2000})
        boats = Shelf(state.database, state.index, store_id="vs_boats")
        await boats.open()
        await boats.put("file-boat", [BOAT], attributes={"year": 1950})
        empty = Shelf(state.database, state.index, store_id="vs_empty")
        await empty.open()
        theirs = Shelf(state.database, state.index, store_id="vs_theirs", project="theirs")
        await theirs.open()
        yield gateway


@pytest.fixture
async def client(
    gateway: InProcessGateway, server: FakeVllm, embedding: FakeVllm
) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client
    server.reset()
    embedding.reset()


def says(server: FakeVllm, *turns: Said) -> Script:
    script = Script(*turns)
    server.behave(CHAT, script)
    return script


def tool(*stores: str, **fields: Any) -> Any:
    return {"type": "file_search", "vector_store_ids": [*(stores or ("vs_lamps",))], **fields}


async def searched(client: AsyncOpenAI, *tools: Any, **fields: Any) -> Response:
    response = await client.responses.create(
        model=MODEL, input="What of the lamp?", tools=[*tools], include=[RESULTS], **fields
    )
    Response.model_validate_json(response.model_dump_json(exclude_unset=True), strict=True)
    return response


def found(response: Response) -> list[str]:
    """The files of the first search's results."""
    call: Any = response.output[0]
    return [one.file_id for one in call.results]


def cited(response: Response) -> list[tuple[Any, ...]]:
    """File, chunk, and the text up to where each citation stands."""
    text = response.output_text
    part: Any = response.output[-1].content[-1]  # type: ignore[union-attr]
    return [(one.file_id, one.chunk_id, text[: one.index]) for one in part.annotations]


async def test_a_search_is_made_and_answered(client: AsyncOpenAI, server: FakeVllm) -> None:
    """The model is shown passages with their files' names; the caller the results, where asked."""
    script = says(server, Said(calls=[QUERY]), Said("It turns."))
    response = await searched(client, tool(max_num_results=2))
    call: Any = response.output[0]
    assert (call.type, call.status, call.queries) == (
        "file_search_call",
        "completed",
        ["lamp lighthouse oil"],
    )
    first = call.results[0].model_dump()
    assert first["file_id"] == "file-lamp"
    assert first["filename"] == "file-lamp.txt"
    assert first["attributes"]["year"] == 1900
    assert first["text"] in (LAMP, OIL)
    assert 0 < first["score"] <= 1
    assert (first["vector_store_id"], first["chunk_id"][:12]) == ("vs_lamps", "vsf_vs_lamps")
    assert len(call.results) == 2
    function = script.requests[0]["tools"][0]["function"]
    assert (function["name"], function["parameters"]["required"]) == ("file_search", ["query"])
    told = script.requests[1]["messages"][-1]
    assert told["role"] == "tool"
    assert told["content"].startswith(f"[1] file-lamp.txt\n{first['text']}")
    assert told["tool_call_id"] == script.requests[1]["messages"][-2]["tool_calls"][0]["id"]


async def test_results_are_shown_where_they_are_asked_for(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """In the response and when it is read again; what is stored has them in any case."""
    says(server, Said(calls=[QUERY]), Said("It turns."))
    response = await client.responses.create(model=MODEL, input="a", tools=[tool()])
    assert response.output[0].results is None  # type: ignore[union-attr]
    again = await client.responses.retrieve(response.id)
    assert again == response
    again = await client.responses.retrieve(response.id, include=[RESULTS])
    assert set(found(again)) == {"file-lamp", "file-night"}


async def test_a_sentence_cites_the_passage_that_has_its_words(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """Each at its end, with file and chunk; a sentence of something else cites nothing."""
    says(server, Said(calls=[QUERY]), Said(f"I looked it up. {LAMP} {OIL} Anything else you want?"))
    response = await searched(client, tool())
    assert cited(response) == [
        ("file-lamp", "vsf_vs_lamps_file-lamp-0", f"I looked it up. {LAMP}"),
        ("file-lamp", "vsf_vs_lamps_file-lamp-1", f"I looked it up. {LAMP} {OIL}"),
    ]


async def test_an_answer_in_other_words_cites_its_files(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """The best passage of each, at the end of the text."""
    says(server, Said(calls=[QUERY]), Said("Es dreht sich."))
    response = await searched(client, tool())
    assert [(file, text) for file, _, text in cited(response)] == [
        ("file-lamp", "Es dreht sich."),
        ("file-night", "Es dreht sich."),
    ]


async def test_what_the_model_said_before_it_searched_cites_nothing(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """It can't rest on what wasn't there."""
    says(server, Said("Let me look.", calls=[QUERY]), Said(LAMP))
    response = await searched(client, tool())
    before: Any = response.output[0]
    assert before.content[0].annotations == []
    assert len(cited(response)) == 1


async def test_filters_and_ranking_apply(client: AsyncOpenAI, server: FakeVllm) -> None:
    """As in a search of the store itself."""
    turns = (Said(calls=[QUERY]), Said("Yes."))
    says(server, *turns * 4)
    newer: Any = {"type": "gt", "key": "year", "value": 1950}
    assert found(await searched(client, tool(filters=newer))) == ["file-night"]
    none = await searched(client, tool(ranking_options={"score_threshold": 1.0}))
    assert found(none) == []
    assert cited(none) == []
    response = await searched(
        client, tool(max_num_results=1, ranking_options={"ranker": "auto", "score_threshold": 0.0})
    )
    assert len(found(response)) == 1
    shown: Any = response.tools[0]
    assert (shown.max_num_results, shown.ranking_options.ranker) == (1, "auto")
    assert found(await searched(client, tool(search_mode="keyword")))


async def test_several_stores_are_one(client: AsyncOpenAI, server: FakeVllm) -> None:
    """The best of all of them together; each is searched once."""
    says(server, Said(calls=[("file_search", {"query": "boat harbour lamp"})]), Said("Yes."))
    response = await searched(client, tool("vs_lamps", "vs_boats", "vs_lamps", "vs_empty"))
    call: Any = response.output[0]
    assert found(response)[0] == "file-boat"
    assert len(call.results) == 4
    assert {one.vector_store_id for one in call.results} == {"vs_lamps", "vs_boats"}
    scores = [one.score for one in call.results]
    assert scores == sorted(scores, reverse=True)


async def test_two_searches_have_names_of_their_own(client: AsyncOpenAI, server: FakeVllm) -> None:
    """Two tools of one kind, and a function that is called as one."""
    script = says(server, Said(calls=[("file_search_2", {"query": "boat"})]), Said("Noon."))
    response = await searched(client, tool(), tool("vs_boats"))
    assert found(response) == ["file-boat"]
    names = [one["function"]["name"] for one in script.requests[0]["tools"]]
    assert names == ["file_search", "file_search_2"]
    function: Any = {"type": "function", "name": "file_search", "parameters": {}, "strict": False}
    says(server, Said(calls=[("file_search", {})]))
    response = await searched(client, tool(), function)
    assert [item.type for item in response.output] == ["function_call"]


async def test_a_search_can_be_made_to_happen(client: AsyncOpenAI, server: FakeVllm) -> None:
    """`tool_choice` forces it in the first turn; later turns are free, else it would never end."""
    script = says(server, Said(calls=[QUERY], finish="stop"), Said("Yes."))
    response = await searched(client, tool(), tool_choice={"type": "file_search"})
    assert response.status == "completed"
    named = {"type": "function", "function": {"name": "file_search"}}
    assert [one["tool_choice"] for one in script.requests] == [named, "auto"]


async def test_nothing_found_is_told(client: AsyncOpenAI, server: FakeVllm) -> None:
    """The model can say so; nothing is cited."""
    script = says(server, Said(calls=[QUERY]), Said("I found nothing about it."))
    response = await searched(client, tool("vs_empty"))
    assert (found(response), cited(response)) == ([], [])
    assert "Nothing was found" in script.requests[1]["messages"][-1]["content"]


async def test_a_later_response_knows_what_was_found(client: AsyncOpenAI, server: FakeVllm) -> None:
    """The search of an earlier response is shown to the model as it was."""
    script = says(server, Said(calls=[QUERY]), Said("It turns."))
    first = await client.responses.create(model=MODEL, input="a", tools=[tool()])
    says_now = says(server, Said("At night."))
    await client.responses.create(model=MODEL, input="When?", previous_response_id=first.id)
    messages = says_now.requests[0]["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[2]["content"] == script.requests[1]["messages"][-1]["content"]


async def test_a_store_that_is_not_there_is_an_error_at_once(
    gateway: InProcessGateway, client: AsyncOpenAI, server: FakeVllm
) -> None:
    """Before the model is asked; another project's is as little there."""
    status = 404 if gateway.settings.server.profile == "openai" else 400
    script = says(server, Said(calls=[QUERY]))
    for store in ("vs_nope", "vs_theirs"):
        with pytest.raises(openai.APIStatusError) as raised:
            await searched(client, tool("vs_lamps", store))
        assert (raised.value.status_code, raised.value.param) == (
            status,
            "tools[0].vector_store_ids[1]",
        )
    assert script.requests == []


async def test_a_search_that_fails_fails_the_response(
    client: AsyncOpenAI, server: FakeVllm, embedding: FakeVllm
) -> None:
    """An answer that was to rest on documents is none without them."""
    says(server, Said(calls=[QUERY]))
    embedding.behave("/v1/embeddings", faults.unavailable())
    with pytest.raises(openai.InternalServerError) as raised:
        await searched(client, tool())
    assert raised.value.status_code == 503
    stream = await client.responses.create(model=MODEL, input="a", tools=[tool()], stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert events[-2].type == "response.output_item.done"
