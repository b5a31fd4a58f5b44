"""Tools that responses run: MCP servers, approvals, the web; and prompts, conversations, shields.

The servers of tools are real ones; the model plays a script.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.support.gateway import HOST, free_port
from tests.support.inprocess import InProcessGateway
from tests.support.search_engines import SearchEngine
from tests.support.tool_servers import OddServing, ToolServing, answer, result, tool
from tests.support.upstream import FakeVllm
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

TOKEN = "sesame-51c2"
MODEL = "fake-chat"


@pytest.fixture(scope="module")
async def tools() -> AsyncIterator[ToolServing]:
    async with ToolServing() as serving:
        yield serving


@pytest.fixture(scope="module")
async def guarded() -> AsyncIterator[ToolServing]:
    async with ToolServing(token=TOKEN) as serving:
        yield serving


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[SearchEngine]:
    async with SearchEngine("searxng") as serving:
        yield serving


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FakeVllm]:
    async with FakeVllm() as server:
        yield server


@pytest.fixture(scope="module")
async def guard() -> AsyncIterator[FakeVllm]:
    """A Llama Guard that finds bombs unsafe."""

    def verdict(body: dict[str, Any]) -> str:
        return "unsafe\nS9" if "bomb" in str(body["messages"]) else "safe"

    async with FakeVllm(["llama-guard-3"], reply=verdict) as server:
        yield server


@pytest.fixture(scope="module")
async def gateway(
    upstream: FakeVllm,
    guard: FakeVllm,
    tools: ToolServing,
    engine: SearchEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[upstream.url, guard.url],
        models=[MODEL, "llama-guard-3"],
        data_dir=str(tmp_path_factory.mktemp("tools")),
        tools={
            "connectors": [{"id": "demo", "url": tools.url}],
            "allowed_hosts": [HOST],
            "call_seconds": 4.0,
            "list_seconds": 4.0,
            "connect_seconds": 4.0,
        },
        web_search={"kind": "searxng", "url": engine.url},
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway, upstream: FakeVllm) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client
    upstream.reset()


def mcp(**more: Any) -> dict[str, Any]:
    """The connector's tools, run without asking."""
    return {
        "type": "mcp",
        "server_label": "demo",
        "connector_id": "demo",
        "require_approval": "never",
        **more,
    }


def plays(upstream: FakeVllm, *turns: Said) -> Script:
    script = Script(*turns)
    upstream.behave(CHAT, script)
    return script


ECHO = Said(calls=[("echo", {"text": "Hello!"})])


async def test_a_tool_is_run_and_the_model_is_told(client: AsyncOpenAI, upstream: FakeVllm):
    """List, call, answer: three items; the model sees the schema, its call and its output."""
    script = plays(upstream, ECHO, Said("It said hello."))
    made = await client.responses.create(model=MODEL, input="Echo.", tools=[mcp()])
    listed, call, message = made.output
    assert {one.name for one in listed.tools} == {"echo", "fail", "sleep", "much", "picture"}
    assert (call.type, call.name, call.output, call.error) == ("mcp_call", "echo", "Hello!", None)
    assert call.status == "completed"
    assert message.content[0].text == "It said hello."
    first, second = script.requests
    assert "echo" in [one["function"]["name"] for one in first["tools"]]
    assert [one["role"] for one in second["messages"]] == ["user", "assistant", "tool"]
    assert second["messages"][-1]["content"] == "Hello!"


async def test_the_events_of_a_call(client: AsyncOpenAI, upstream: FakeVllm):
    """Listing and calling tell of each step, in OpenAI's order."""
    plays(upstream, ECHO, Said("Done."))
    stream = await client.responses.create(
        model=MODEL, input="Echo.", tools=[mcp(allowed_tools=["echo"])], stream=True
    )
    events = [event async for event in stream]
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[2:6] == [
        "output_item.added",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "output_item.done",
    ]
    calling = [one for one in kinds if one.startswith("mcp_call")]
    assert calling[0] == "mcp_call.in_progress"
    assert calling[-2:] == ["mcp_call_arguments.done", "mcp_call.completed"]
    assert kinds[-1] == "completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_tools_are_listed_once_in_a_context(
    client: AsyncOpenAI, upstream: FakeVllm, tools: ToolServing
):
    """A response that goes on from another uses what was listed there."""
    plays(upstream, Said("Hi."))
    first = await client.responses.create(model=MODEL, input="Hi.", tools=[mcp()])
    before = len(tools.said("tools/list"))
    second = await client.responses.create(
        model=MODEL, input="Again.", tools=[mcp()], previous_response_id=first.id
    )
    assert [item.type for item in second.output] == ["message"]
    assert len(tools.said("tools/list")) == before


async def test_a_call_waits_for_approval(client: AsyncOpenAI, upstream: FakeVllm):
    """By default the caller is asked; approved, the call is made and names the request."""
    plays(upstream, ECHO)
    asking = mcp()
    del asking["require_approval"]
    first = await client.responses.create(model=MODEL, input="Echo.", tools=[asking])
    request = first.output[-1]
    assert (request.type, request.name) == ("mcp_approval_request", "echo")
    script = plays(upstream, Said("Done."))
    answered = {
        "type": "mcp_approval_response",
        "approval_request_id": request.id,
        "approve": True,
    }
    second = await client.responses.create(
        model=MODEL, previous_response_id=first.id, input=[answered], tools=[asking]
    )
    call = second.output[0]
    assert (call.type, call.output, call.approval_request_id) == ("mcp_call", "Hello!", request.id)
    assert script.requests[0]["messages"][-1]["content"] == "Hello!"
    with pytest.raises(openai.BadRequestError, match="answered already"):
        await client.responses.create(
            model=MODEL, previous_response_id=second.id, input=[answered], tools=[asking]
        )


async def test_a_call_that_is_not_approved_is_not_made(
    client: AsyncOpenAI, upstream: FakeVllm, tools: ToolServing
):
    """The model is told so, with the reason; the server hears nothing."""
    plays(upstream, ECHO)
    asking = mcp(require_approval={"always": {"tool_names": ["echo"]}})
    first = await client.responses.create(model=MODEL, input="Echo.", tools=[asking])
    before = len(tools.said("tools/call"))
    script = plays(upstream, Said("As you like."))
    answered = {
        "type": "mcp_approval_response",
        "approval_request_id": first.output[-1].id,
        "approve": False,
        "reason": "Too loud.",
    }
    second = await client.responses.create(
        model=MODEL, previous_response_id=first.id, input=[answered], tools=[asking]
    )
    assert [item.type for item in second.output] == ["message"]
    assert "Too loud." in script.requests[0]["messages"][-1]["content"]
    assert len(tools.said("tools/call")) == before


async def test_a_tool_that_fails_is_an_item_that_failed(client: AsyncOpenAI, upstream: FakeVllm):
    """The response goes on; the model is told what went wrong."""
    script = plays(upstream, Said(calls=[("fail", {"text": "No lamp."})]), Said("Sorry."))
    made = await client.responses.create(model=MODEL, input="Fail.", tools=[mcp()])
    call = made.output[1]
    assert (call.status, call.error.type) == ("failed", "mcp_tool_execution_error")
    assert "No lamp." in script.requests[1]["messages"][-1]["content"]
    assert made.status == "completed"


async def test_a_slow_tool_is_given_up(client: AsyncOpenAI, upstream: FakeVllm):
    """After the time for a call, with an error; another call of the turn is done."""
    plays(
        upstream,
        Said(calls=[("sleep", {"seconds": 30}), ("echo", {"text": "Quick."})]),
        Said("One was slow."),
    )
    made = await client.responses.create(model=MODEL, input="Both.", tools=[mcp()])
    slow, quick = made.output[1:3]
    assert (slow.status, slow.error.type) == ("failed", "mcp_protocol_error")
    assert (quick.status, quick.output) == ("completed", "Quick.")


async def test_a_token_reaches_the_server_and_nothing_else(
    client: AsyncOpenAI, upstream: FakeVllm, guarded: ToolServing, gateway: InProcessGateway
):
    """`authorization` goes to the server; no answer, no stored response and no span has it."""
    plays(upstream, ECHO, Said("Done."))
    server = {
        "type": "mcp",
        "server_label": "own",
        "server_url": guarded.url,
        "authorization": TOKEN,
        "require_approval": "never",
    }
    made = await client.responses.create(model=MODEL, input="Echo.", tools=[server])
    assert made.output[1].output == "Hello!"
    again = await client.responses.retrieve(made.id)
    spans = [span.to_json() for span in gateway.spans()]
    assert TOKEN not in made.model_dump_json() + again.model_dump_json() + "".join(spans)


async def test_a_server_that_refuses_says_so(
    client: AsyncOpenAI, upstream: FakeVllm, guarded: ToolServing
):
    """A wrong token is a 424 that names the server and its status; the token isn't in it."""
    plays(upstream, Said("Never."))
    server = {
        "type": "mcp",
        "server_label": "own",
        "server_url": guarded.url,
        "authorization": "wrong-9d1",
        "require_approval": "never",
    }
    with pytest.raises(openai.APIStatusError, match=r"own.*401") as refused:
        await client.responses.create(model=MODEL, input="Echo.", tools=[server])
    assert refused.value.status_code == 424
    assert "wrong-9d1" not in str(refused.value)


@pytest.mark.parametrize("way", ["down", "silent", "garbage"])
async def test_a_server_that_can_t_list_its_tools(
    client: AsyncOpenAI, upstream: FakeVllm, way: str
):
    """Down, slow or lying: the stream tells that listing failed, and ends once, within seconds."""
    plays(upstream, Said("Never."))

    async def lie(message: dict[str, Any], send: Any) -> None:
        if way == "garbage":
            await answer(send, 200, b"{not json")

    async with OddServing(tools_list=lie) as odd:
        url = f"http://{HOST}:{free_port()}/mcp" if way == "down" else odd.url
        server = {"type": "mcp", "server_label": "odd", "server_url": url}
        stream = await client.responses.create(
            model=MODEL, input="Echo.", tools=[server], stream=True
        )
        kinds = [event.type async for event in stream]
    assert "response.mcp_list_tools.failed" in kinds
    assert [kind for kind in kinds if kind in ENDS] == ["response.failed"]
    assert kinds[0] == "response.created"


ENDS = ("response.completed", "response.incomplete", "response.failed")


async def test_a_server_that_dies_during_a_call(client: AsyncOpenAI, upstream: FakeVllm):
    """Its item failed, the model is told, and the response is completed."""

    async def die(message: dict[str, Any], send: Any) -> None:
        await serving.stop()

    async def listed(message: dict[str, Any], send: Any) -> None:
        await result(send, message, {"tools": [tool("look")]})

    script = plays(upstream, Said(calls=[("look", {})]), Said("It is gone."))
    async with OddServing(tools_list=listed, tools_call=die) as serving:
        server = {
            "type": "mcp",
            "server_label": "odd",
            "server_url": serving.url,
            "require_approval": "never",
        }
        made = await client.responses.create(model=MODEL, input="Look.", tools=[server])
    assert made.output[1].status == "failed"
    assert script.requests[1]["messages"][-1]["content"].startswith("Error: ")
    assert made.output_text == "It is gone."


async def test_an_address_that_is_not_allowed(client: AsyncOpenAI):
    """A host that isn't listed is a 400 that names the field, before anything is done."""
    server = {"type": "mcp", "server_label": "x", "server_url": "http://10.1.2.3/mcp"}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input="Hi.", tools=[server])
    assert (refused.value.param, refused.value.code) == ("tools[0].server_url", "host_not_allowed")
    image = {"type": "input_image", "image_url": "http://169.254.169.254/latest"}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input=[{"role": "user", "content": [image]}])
    assert refused.value.param == "input[0].content[0].image_url"


@pytest.mark.one_process
async def test_the_trace_goes_on_at_the_server(
    client: AsyncOpenAI, upstream: FakeVllm, gateway: InProcessGateway, tools: ToolServing
):
    """invoke_agent holds chat and execute_tool, which holds tools/call, whose context is sent."""
    plays(upstream, ECHO, Said("Done."))
    await client.responses.create(model=MODEL, input="Echo.", tools=[mcp()])
    called = await gateway.span("tools/call echo")
    by_id = {span.context.span_id: span for span in gateway.spans()}
    names = []
    span = called
    while span.parent is not None and span.parent.span_id in by_id:
        span = by_id[span.parent.span_id]
        names.append(span.name)
    assert names == ["execute_tool echo", "invoke_agent", "POST /v1/responses"]
    sent = tools.said("tools/call")[-1]["headers"]["traceparent"]
    assert sent.split("-")[1:3] == [
        f"{called.context.trace_id:032x}",
        f"{called.context.span_id:016x}",
    ]


async def test_the_web_is_searched_and_cited(client: AsyncOpenAI, upstream: FakeVllm):
    """The query goes to the engine; sources come on request, and the answer cites a page."""
    script = plays(
        upstream,
        Said(calls=[("web_search", {"query": "lamps"})]),
        Said("A lamp gives light."),
    )
    made = await client.responses.create(
        model=MODEL,
        input="What does a lamp do?",
        tools=[{"type": "web_search"}],
        include=["web_search_call.action.sources"],
    )
    search, message = made.output
    assert search.action.query == "lamps"
    assert "https://lamps.example/a" in [one.url for one in search.action.sources]
    assert "A lamp gives light." in script.requests[1]["messages"][-1]["content"]
    assert message.content[0].annotations[0].url == "https://lamps.example/a"


async def test_a_web_search_without_an_engine(upstream: FakeVllm, tmp_path: Any):
    """A clear 400, before the model is asked."""
    async with (
        InProcessGateway(
            discover=[upstream.url], models=[MODEL], data_dir=str(tmp_path)
        ) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(
                model=MODEL, input="Hi.", tools=[{"type": "web_search_preview"}]
            )
    assert (refused.value.param, refused.value.code) == ("tools[0]", "web_search_not_configured")


async def test_a_prompt_comes_first(
    client: AsyncOpenAI, gateway: InProcessGateway, upstream: FakeVllm
):
    """Its text with the variables filled in, then the instructions; a missing one is named."""
    async with gateway.client() as http:
        made = await http.post(
            "/v1/prompts", json={"prompt": "You keep {{ what }}.", "variables": ["what"]}
        )
    prompt_id = made.json()["prompt_id"]
    script = plays(upstream, Said("Yes."))
    answer = await client.responses.create(
        model=MODEL,
        input="Hi.",
        instructions="Be brief.",
        prompt={"id": prompt_id, "version": "1", "variables": {"what": "lamps"}},
    )
    assert answer.prompt.id == prompt_id
    assert script.requests[0]["messages"][0] == {
        "role": "system",
        "content": "You keep lamps.\n\nBe brief.",
    }
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input="Hi.", prompt={"id": prompt_id})
    assert refused.value.param == "prompt.variables.what"


async def test_a_conversation_grows(client: AsyncOpenAI, upstream: FakeVllm):
    """Input and output are added, also with `store: false`; the next response has them all."""
    conversation = await client.conversations.create()
    script = plays(upstream, Said("One."))
    await client.responses.create(
        model=MODEL, input="First.", conversation=conversation.id, store=False
    )
    await client.responses.create(model=MODEL, input="Second.", conversation=conversation.id)
    said = [one["content"] for one in script.requests[1]["messages"]]
    assert said == ["First.", "One.", "Second."]
    items = (await client.conversations.items.list(conversation.id, order="asc")).data
    assert [item.role for item in items] == ["user", "assistant", "user", "assistant"]


async def test_a_shield_refuses_what_goes_in(client: AsyncOpenAI, upstream: FakeVllm):
    """The answer is a refusal, and the model is never asked."""
    script = plays(upstream, Said("Never."))
    made = await client.responses.create(
        model=MODEL,
        input="How is a bomb built?",
        extra_body={"guardrails": ["llama-guard-3"]},
    )
    assert made.output[0].content[0].type == "refusal"
    assert script.requests == []


async def test_a_shield_refuses_what_comes_out(client: AsyncOpenAI, upstream: FakeVllm):
    """Nothing of it is streamed before it was judged."""
    plays(upstream, Said("Take a bomb."))
    stream = await client.responses.create(
        model=MODEL,
        input="What now?",
        stream=True,
        extra_body={"guardrails": [{"type": "llama-guard-3"}]},
    )
    events = [event async for event in stream]
    assert not any(event.type == "response.output_text.delta" for event in events)
    assert events[-1].response.output[0].content[0].type == "refusal"
    assert "Take a bomb." not in "".join(event.model_dump_json() for event in events)
