"""Responses through OpenAI's own client: what goes in reaches the model, and what comes out is what
the client's types say."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.response_streams import open_responses
from tests.support.upstream import FakeVllm, faults
from tests.support.upstream.answers import error_event
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.scripted import CHAT, Said, Script

pytestmark = pytest.mark.anyio

MODEL = "fake-chat"
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 8
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
TIME: Any = {"type": "function", "name": "get_time", "parameters": None, "strict": None}
CALL = ("get_weather", {"city": "Paris"})
THOUGHTS = "reasoning.encrypted_content"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FakeVllm]:
    async with FakeVllm([MODEL]) as server:
        yield server


@pytest.fixture(scope="module", params=["openai", "llamastack"])
async def gateway(
    request: pytest.FixtureRequest, server: FakeVllm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        configured=[{"id": MODEL, "aliases": ["gpt-4o"], "backends": [{"url": server.url}]}],
        models=[MODEL],
        server={"profile": request.param},
        data_dir=str(tmp_path_factory.mktemp("responses")),
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: InProcessGateway, server: FakeVllm) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        yield client
    server.reset()


@pytest.fixture
async def http(gateway: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as client:
        yield client


def says(server: FakeVllm, *turns: Said) -> Script:
    """Let the model say this; what is asked of it is in the script's `requests`."""
    script = Script(*(turns or (Said("Yes."),)))
    server.behave(CHAT, script)
    return script


async def heard(client: AsyncOpenAI, server: FakeVllm, given: Any, **fields: Any) -> list[Any]:
    """The messages that the model gets for this input."""
    script = says(server)
    await client.responses.create(model=MODEL, input=given, **fields)
    return script.requests[0]["messages"]


def strict(response: Response) -> None:
    """Fails where the response isn't what the client's type says."""
    Response.model_validate_json(response.model_dump_json(exclude_unset=True), strict=True)


# Input.


async def test_a_text_is_answered(client: AsyncOpenAI, server: FakeVllm) -> None:
    """The answer is a response of the client's type, complete with what it took."""
    script = says(server, Said("Paris."))
    response = await client.responses.create(model=MODEL, input="What is it?")
    strict(response)
    open_responses(response.model_dump())
    assert script.requests[0]["messages"] == [{"role": "user", "content": "What is it?"}]
    assert (response.output_text, response.status, response.model) == ("Paris.", "completed", MODEL)
    assert response.id.startswith("resp_")
    assert response.output[0].id.startswith("msg_")
    assert response.usage
    assert (response.usage.input_tokens, response.usage.output_tokens) == (25, 3)
    assert response.usage.total_tokens == 28
    assert await client.responses.retrieve(response.id) == response


MESSAGES: dict[str, tuple[Any, Any]] = {
    "an easy message": (
        [{"role": "user", "content": "a"}],
        [{"role": "user", "content": "a"}],
    ),
    "a typed message": (
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}],
        [{"role": "user", "content": "a"}],
    ),
    "texts": (
        [{"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}],
        [{"role": "user", "content": "a\nb"}],
    ),
    "roles": (
        [
            {"role": "system", "content": "s"},
            {"role": "developer", "content": "d"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "developer", "content": "e"},
            {"role": "user", "content": "c"},
        ],
        [
            {"role": "system", "content": "s\n\nd"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": "e"},
            {"role": "user", "content": "c"},
        ],
    ),
    "what the model said": (
        [
            {"role": "user", "content": "a"},
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "b", "annotations": []},
                    {"type": "refusal", "refusal": "no"},
                ],
            },
            {"role": "user", "content": "c"},
        ],
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b\nno"},
            {"role": "user", "content": "c"},
        ],
    ),
    "an image": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_image", "image_url": URL, "detail": "low"},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
                ],
            }
        ],
    ),
    "a sound": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}
                ],
            }
        ],
    ),
    "calls and their outputs": (
        [
            {"role": "user", "content": "a"},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a": 1}'},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "oops"},
            {"type": "function_call_output", "call_id": "1", "output": "x"},
            {
                "type": "function_call_output",
                "call_id": "2",
                "output": [{"type": "input_text", "text": "y"}],
            },
        ],
        [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": 1}'},
                    },
                    {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "tool", "tool_call_id": "2", "content": "y"},
        ],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_input_of_every_form_reaches_the_model(
    client: AsyncOpenAI, server: FakeVllm, name: str
) -> None:
    """As the messages that a chat template knows."""
    given, expected = MESSAGES[name]
    assert await heard(client, server, given) == expected


async def test_files_reach_the_model_as_text(client: AsyncOpenAI, server: FakeVllm) -> None:
    """By id and as data; images by id as well. Each is read once, however often it is named."""
    file = await client.files.create(file=("a.txt", b"The lamp is lit."), purpose="user_data")
    image = await client.files.create(file=("a.png", PNG), purpose="vision")
    data = base64.b64encode(b"Oil burns.").decode()
    parts = [
        {"type": "input_file", "file_id": file.id},
        {"type": "input_file", "filename": "b.txt", "file_data": data},
        {"type": "input_file", "filename": "c.txt", "file_data": f"data:text/plain;base64,{data}"},
        {"type": "input_image", "file_id": image.id, "detail": "auto"},
        {"type": "input_file", "file_id": file.id},
    ]
    [message] = await heard(client, server, [{"role": "user", "content": parts}])
    texts = [part.get("text") for part in message["content"]]
    assert texts[:3] == [
        "File a.txt:\nThe lamp is lit.",
        "File b.txt:\nOil burns.",
        "File c.txt:\nOil burns.",
    ]
    assert message["content"][3]["image_url"] == {"url": URL, "detail": "auto"}
    assert texts[4] == texts[0]
    [message] = await heard(client, server, [{"role": "user", "content": parts[:1]}])
    assert message["content"] == "File a.txt:\nThe lamp is lit."


async def test_a_file_that_was_deleted_is_named_by_where_it_came_from(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """In a later turn it isn't in the input, and the input's numbers begin at zero anyway."""
    file = await client.files.create(file=("a.txt", b"The lamp is lit."), purpose="user_data")
    part = {"type": "input_file", "file_id": file.id}
    says(server)
    first = await client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": [part]}],  # type: ignore[typeddict-item]
    )
    later: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-nope"}]}]
    with pytest.raises(openai.APIStatusError) as raised:
        await client.responses.create(model=MODEL, input=later, previous_response_id=first.id)
    assert raised.value.param == "input[0].content[0].file_id"
    await client.files.delete(file.id)
    with pytest.raises(openai.APIStatusError) as raised:
        await client.responses.create(model=MODEL, input="b", previous_response_id=first.id)
    assert raised.value.param == "previous_response_id"


async def test_instructions_are_for_one_response(client: AsyncOpenAI, server: FakeVllm) -> None:
    """They come first, together with the input's own; the next response doesn't have them."""
    script = says(server, Said("b"))
    given: Any = [{"role": "developer", "content": "d"}, {"role": "user", "content": "a"}]
    first = await client.responses.create(model=MODEL, input=given, instructions="Be brief.")
    second = await client.responses.create(
        model=MODEL, input="c", previous_response_id=first.id, instructions="Be long."
    )
    assert (first.instructions, second.instructions) == ("Be brief.", "Be long.")
    assert second.previous_response_id == first.id
    assert script.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief.\n\nd"},
        {"role": "user", "content": "a"},
    ]
    assert script.requests[1]["messages"] == [
        {"role": "system", "content": "Be long.\n\nd"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


async def test_items_can_be_referred_to(client: AsyncOpenAI, server: FakeVllm) -> None:
    """What a response has made, by its id; not twice where the context has it already."""
    script = says(server, Said(calls=[CALL]), Said("Sunny."))
    first = await client.responses.create(model=MODEL, input="a", tools=[WEATHER])
    call: Any = first.output[0]
    given: Any = [
        {"role": "user", "content": "a"},
        {"type": "item_reference", "id": call.id},
        {"type": "function_call_output", "call_id": call.call_id, "output": "sun"},
    ]
    await client.responses.create(model=MODEL, input=given, tools=[WEATHER])
    await client.responses.create(
        model=MODEL, input=given[1:], previous_response_id=first.id, tools=[WEATHER]
    )
    await client.responses.create(
        model=MODEL, input=given[2:], previous_response_id=first.id, tools=[WEATHER]
    )
    heard = [one["messages"] for one in script.requests[1:]]
    assert heard[0][1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert heard[0][2] == {"role": "tool", "tool_call_id": call.call_id, "content": "sun"}
    assert heard[1] == heard[0]
    assert heard[2] == heard[0]
    twice = [*given[:2], *given[1:]]
    await client.responses.create(model=MODEL, input=twice, tools=[WEATHER])
    assert len(script.requests[-1]["messages"][1]["tool_calls"]) == 1


async def test_thoughts_go_on_without_the_gateway_keeping_them(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """With `store: false` the caller carries them; only those of the turn at hand are shown."""
    script = says(server, Said(reasoning="I need the weather.", calls=[CALL]), Said("Sunny."))
    first = await client.responses.create(
        model=MODEL, input="a", tools=[WEATHER], store=False, include=[THOUGHTS]
    )
    strict(first)
    assert first.store is False
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)
    [thought, call] = [item.model_dump(exclude_unset=True) for item in first.output]
    assert thought["encrypted_content"]
    assert thought["content"][0]["text"] == "I need the weather."
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
    bare = {k: v for k, v in thought.items() if k != "content"} | {"summary": []}
    given: Any = [{"role": "user", "content": "a"}, bare, call, output]
    await client.responses.create(model=MODEL, input=given, tools=[WEATHER], store=False)
    assert script.requests[1]["messages"][1]["reasoning"] == "I need the weather."
    given += [{"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "b"}]
    await client.responses.create(model=MODEL, input=given, tools=[WEATHER], store=False)
    assert not any("reasoning" in one for one in script.requests[2]["messages"])


async def test_a_response_without_a_store_can_not_be_built_on(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """400 with OpenAI's code."""
    says(server)
    first = await client.responses.create(model=MODEL, input="a", store=False)
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.create(model=MODEL, input="b", previous_response_id=first.id)
    assert raised.value.code == "previous_response_not_found"


# What is asked of the model.


class Place(BaseModel):
    city: str


async def test_an_answer_is_parsed(client: AsyncOpenAI, server: FakeVllm) -> None:
    """`responses.parse`: the schema is the model server's to keep."""
    script = says(server, Said('{"city": "Paris"}'))
    response = await client.responses.parse(model=MODEL, input="a", text_format=Place)
    assert response.output_parsed == Place(city="Paris")
    form = script.requests[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "Place"
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["properties"] == {
        "city": {"title": "City", "type": "string"}
    }
    async with client.responses.stream(model=MODEL, input="a", text_format=Place) as stream:
        assert (await stream.get_final_response()).output_parsed == Place(city="Paris")


async def test_any_json_is_asked_for(client: AsyncOpenAI, server: FakeVllm) -> None:
    """`json_object`, and `text` as the default."""
    script = says(server, Said("{}"))
    response = await client.responses.create(
        model=MODEL, input="a", text={"format": {"type": "json_object"}, "verbosity": "low"}
    )
    assert script.requests[0]["response_format"] == {"type": "json_object"}
    assert response.text
    assert response.text.model_dump() == {"format": {"type": "json_object"}, "verbosity": "low"}
    response = await client.responses.create(
        model=MODEL, input="a", text={"format": {"type": "text"}}
    )
    assert "response_format" not in script.requests[1]
    strict(response)


async def test_what_is_said_of_sampling_reaches_the_model(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """And is shown in the response, with OpenAI's defaults where nothing is said."""
    script = says(server)
    response = await client.responses.create(
        model=MODEL,
        input="a",
        temperature=0.5,
        top_p=0.25,
        max_output_tokens=100,
        reasoning={"effort": "low"},
        user="u",
        metadata={"a": "b"},
        safety_identifier="s",
        prompt_cache_key="k",
        extra_body={"frequency_penalty": 0.5, "presence_penalty": 1},
    )
    strict(response)
    sent = script.requests[0]
    expected = {
        "temperature": 0.5,
        "top_p": 0.25,
        "max_completion_tokens": 100,
        "reasoning_effort": "low",
        "user": "u",
        "prompt_cache_key": "k",
        "frequency_penalty": 0.5,
        "presence_penalty": 1.0,
    }
    assert {name: sent[name] for name in expected} == expected
    assert set(sent) == {*expected, "model", "messages", "stream", "stream_options"}
    shown = response.model_dump()
    assert (shown["temperature"], shown["top_p"]) == (0.5, 0.25)
    assert (shown["frequency_penalty"], shown["presence_penalty"]) == (0.5, 1.0)
    assert (shown["max_output_tokens"], shown["metadata"]) == (100, {"a": "b"})
    assert (shown["safety_identifier"], shown["prompt_cache_key"]) == ("s", "k")
    assert shown["reasoning"]["effort"] == "low"
    plain = await client.responses.create(model=MODEL, input="a")
    assert (plain.temperature, plain.top_p, plain.truncation) == (1.0, 1.0, "disabled")
    assert set(script.requests[1]) == {"model", "messages", "stream", "stream_options"}


async def test_unknown_fields_pass_through(client: AsyncOpenAI, server: FakeVllm) -> None:
    """What only vLLM knows reaches it with every turn; what only OpenAI means doesn't."""
    script = says(server)
    more = {
        "top_k": 5,
        "chat_template_kwargs": {"enable_thinking": False},
        "seed": 7,
        "stop": ["\n"],
        "min_p": 0.1,
        "structured_outputs": {"choice": ["Yes."]},
    }
    await client.responses.create(
        model=MODEL, input="a", extra_body={**more, "n": 3, "prompt_cache_retention": "24h"}
    )
    sent = script.requests[0]
    assert {name: sent[name] for name in more} == more
    assert "n" not in sent
    assert "prompt_cache_retention" not in sent


async def test_log_probabilities_are_shown(client: AsyncOpenAI, server: FakeVllm) -> None:
    """For each token, where `include` asks for them."""
    script = says(server, Said("Yes it is."))
    response = await client.responses.create(
        model=MODEL, input="a", include=["message.output_text.logprobs"], top_logprobs=2
    )
    strict(response)
    assert (script.requests[0]["logprobs"], script.requests[0]["top_logprobs"]) == (True, 2)
    part: Any = response.output[0].content[0]  # type: ignore[union-attr]
    assert [one.token for one in part.logprobs] == ["Yes", " it", " is", "."]
    assert all(len(one.top_logprobs) == 2 for one in part.logprobs)


# Functions.


async def test_a_function_is_called_and_answered(client: AsyncOpenAI, server: FakeVllm) -> None:
    """The whole round, with what the response says of the tools."""
    script = says(server, Said("Let me see.", calls=[CALL]), Said("Sunny."))
    first = await client.responses.create(model=MODEL, input="a", tools=[WEATHER, TIME])
    strict(first)
    assert [item.type for item in first.output] == ["message", "function_call"]
    call: Any = first.output[1]
    assert (call.name, json.loads(call.arguments)) == CALL
    assert call.id.startswith("fc_")
    assert (first.tool_choice, first.parallel_tool_calls) == ("auto", True)
    assert [tool.model_dump(exclude_unset=True) for tool in first.tools] == [
        WEATHER,
        {**TIME, "description": None},
    ]
    assert script.requests[0]["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather.",
                "parameters": WEATHER["parameters"],
                "strict": True,
            },
        },
        {
            "type": "function",
            "function": {
                "name": "get_time",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            },
        },
    ]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    second = await client.responses.create(
        model=MODEL, input=[output], previous_response_id=first.id, tools=[WEATHER]
    )
    assert second.output_text == "Sunny."
    [_, said, told] = script.requests[1]["messages"]
    assert said["content"] == "Let me see."
    assert said["tool_calls"][0]["id"] == call.call_id
    assert told == {"role": "tool", "tool_call_id": call.call_id, "content": "sun"}
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call"):
        await client.responses.create(model=MODEL, input="b", previous_response_id=first.id)


FORCED = {"type": "function", "function": {"name": "get_weather"}}
ONE = {"type": "function", "name": "get_weather"}
CHOICES: dict[str, tuple[Any, Any, list[str]]] = {
    "none": ("none", "none", ["get_weather", "get_time"]),
    "auto": ("auto", "auto", ["get_weather", "get_time"]),
    "required": ("required", "required", ["get_weather", "get_time"]),
    "one": (ONE, FORCED, ["get_weather"]),
    "allowed, auto": (
        {"type": "allowed_tools", "mode": "auto", "tools": [ONE]},
        "auto",
        ["get_weather"],
    ),
    "allowed, required": (
        {"type": "allowed_tools", "mode": "required", "tools": [ONE]},
        "required",
        ["get_weather"],
    ),
}


@pytest.mark.parametrize("name", CHOICES)
async def test_a_choice_of_tools_reaches_the_model(
    client: AsyncOpenAI, server: FakeVllm, name: str
) -> None:
    """In the words of chat completions, and as it was given in the response."""
    choice, sent, tools = CHOICES[name]
    script = says(server)
    response = await client.responses.create(
        model=MODEL, input="a", tools=[WEATHER, TIME], tool_choice=choice
    )
    strict(response)
    assert script.requests[0]["tool_choice"] == sent
    assert [one["function"]["name"] for one in script.requests[0]["tools"]] == tools
    shown = response.tool_choice
    assert (shown if isinstance(shown, str) else shown.model_dump(exclude_unset=True)) == choice


# Models.


@pytest.mark.parametrize("name", ["gpt-4o", f"vllm/{MODEL}", MODEL])
async def test_the_answer_names_the_model_as_asked(
    client: AsyncOpenAI, server: FakeVllm, name: str
) -> None:
    """Aliases and LlamaStack's names too, streamed, stored and listed."""
    script = says(server)
    response = await client.responses.create(model=name, input="a")
    assert (response.model, script.requests[0]["model"]) == (name, MODEL)
    assert (await client.responses.retrieve(response.id)).model == name
    async with client.responses.stream(model=name, input="a") as stream:
        models = {one.response.model async for one in stream if hasattr(one, "response")}
    assert models == {name}


async def test_a_context_that_is_too_long_is_told_in_openais_words(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """The model server's refusal names `input`, streamed and not."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.responses.create(model=MODEL, input="word " * 3000, stream=stream)
        assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")


async def test_a_context_that_is_too_long_is_cut_where_that_is_wanted(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """`truncation: auto` leaves out the oldest turns, but neither instructions nor the last."""
    given: Any = [
        {"role": role, "content": f"{role} {n} " + "word " * 400}
        for n in range(5)
        for role in ("user", "assistant")
    ]
    given.append({"role": "user", "content": "last"})
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model=MODEL, input=given, truncation="disabled")
    before = len(server.requests_to(CHAT))
    response = await client.responses.create(
        model=MODEL, input=given, truncation="auto", instructions="Be brief."
    )
    assert (response.status, response.truncation) == ("completed", "auto")
    sent = server.requests_to(CHAT)[-1].json["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[1]["role"] == "user"
    assert sent[-1] == {"role": "user", "content": "last"}
    assert len(server.requests_to(CHAT)) - before < 5
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.create(model=MODEL, input="word " * 3000, truncation="auto")
    assert raised.value.code == "context_length_exceeded"


async def test_the_model_servers_refusals_name_the_callers_parameters(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """vLLM speaks of `max_completion_tokens`, callers of `max_output_tokens`."""
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.create(model=MODEL, input="a", max_output_tokens=100_000)
    assert raised.value.param == "max_output_tokens"
    server.behave(CHAT, faults.vllm_error(400, "Bad messages.", "BadRequestError"))
    with pytest.raises(openai.BadRequestError, match="Bad messages"):
        await client.responses.create(model=MODEL, input="a")


async def test_an_error_in_the_middle_is_the_streams_end(
    client: AsyncOpenAI, server: FakeVllm
) -> None:
    """The client sees `response.failed` with OpenAI's code."""

    async def breaks(exchange: Exchange) -> None:
        await exchange.chunk(error_event("The engine died."))
        await exchange.end_stream()

    says(server, Said("The capital", breaks=breaks))
    stream = await client.responses.create(model=MODEL, input="a", stream=True)
    last = [event async for event in stream][-1]
    assert last.type == "response.failed"
    assert last.response.error
    assert (last.response.error.code, last.response.error.message) == (
        "server_error",
        "The engine died.",
    )


# What is kept.


async def test_responses_are_listed(
    gateway: InProcessGateway, http: httpx.AsyncClient, client: AsyncOpenAI, server: FakeVllm
) -> None:
    """LlamaStack's list: newest first, in pages, by model, each with its input."""
    says(server)
    made = [
        (await client.responses.create(model=model, input=f"{n}")).id
        for n, model in enumerate([MODEL, "gpt-4o", MODEL])
    ]
    page = (await http.get("/v1/responses", params={"limit": 2})).json()
    assert [one["id"] for one in page["data"]] == made[:0:-1]
    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (made[2], made[1])
    assert page["data"][0]["input"][0]["content"] == [{"type": "input_text", "text": "2"}]
    rest = (await http.get("/v1/responses", params={"after": made[1], "limit": 1})).json()
    assert [one["id"] for one in rest["data"]] == made[:1]
    named = (await http.get("/v1/responses", params={"model": "gpt-4o"})).json()
    assert made[1] in [one["id"] for one in named["data"]]
    assert {one["model"] for one in named["data"]} == {"gpt-4o"}
    none = (await http.get("/v1/openai/v1/responses", params={"model": "nope"})).json()
    empty = "" if gateway.settings.server.profile == "llamastack" else None
    assert (none["data"], none["first_id"], none["has_more"]) == ([], empty, False)


async def test_a_deleted_response_is_gone(client: AsyncOpenAI, server: FakeVllm) -> None:
    """It can neither be read nor built on."""
    says(server)
    made = await client.responses.create(model=MODEL, input="a")
    await client.responses.delete(made.id)
    for call in (client.responses.retrieve(made.id), client.responses.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            await call
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model=MODEL, input="b", previous_response_id=made.id)


async def test_input_items_are_paged(client: AsyncOpenAI, server: FakeVllm) -> None:
    """Newest first unless asked otherwise, with what earlier responses have brought."""
    says(server, Said("b"))
    first = await client.responses.create(model=MODEL, input="a")
    given: Any = [{"role": "user", "content": "c"}, {"role": "user", "content": "d"}]
    second = await client.responses.create(model=MODEL, input=given, previous_response_id=first.id)
    items = client.responses.input_items
    everything = [one async for one in items.list(second.id, order="asc")]
    assert [one.content[0].text for one in everything] == ["a", "b", "c", "d"]
    newest = [one async for one in items.list(second.id, limit=3)]
    assert newest == everything[::-1]
    page = await items.list(second.id, order="asc", limit=2)
    assert (page.data, page.has_more) == (everything[:2], True)
    ids = [one.id for one in everything]
    assert (page.first_id, page.last_id) == (ids[0], ids[1])  # type: ignore[attr-defined]
    page = await items.list(second.id, order="asc", after=str(ids[1]))
    assert (page.data, page.has_more) == (everything[2:], False)
    page = await items.list(second.id, order="asc", limit=2, extra_query={"before": str(ids[3])})
    assert (page.data, page.has_more) == (everything[1:3], True)


async def test_input_tokens_are_counted(client: AsyncOpenAI, server: FakeVllm) -> None:
    """By the model server, with instructions, earlier turns and tools."""
    says(server, Said("four words are here"))
    counted = await client.responses.input_tokens.count(model=MODEL, input="one two three")
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 3)
    first = await client.responses.create(model=MODEL, input="one two")
    counted = await client.responses.input_tokens.count(
        model=MODEL,
        input="three",
        instructions="zero",
        previous_response_id=first.id,
        tools=[WEATHER],
    )
    sent = server.requests_to("/tokenize")[-1].json
    assert [one["role"] for one in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert sent["tools"][0]["function"]["name"] == "get_weather"
    assert sent["model"] == MODEL
    assert counted.input_tokens > 6


async def test_a_conversation_is_compacted(client: AsyncOpenAI, server: FakeVllm) -> None:
    """The user's messages stay, the rest is one opaque item, and the conversation goes on."""
    script = says(server, Said("It is sunny."), Said("<think>Hm.</think>Sunny in Paris."))
    first = await client.responses.create(model=MODEL, input="Weather in Paris?")
    done = await client.responses.compact(model=MODEL, previous_response_id=first.id)
    assert (done.object, done.id[:5]) == ("response.compaction", "resp_")
    assert [item.type for item in done.output] == ["message", "compaction"]
    assert done.usage.input_tokens == 25
    asked = script.requests[1]["messages"]
    assert [one["content"] for one in asked[:2]] == ["Weather in Paris?", "It is sunny."]
    given: Any = [item.model_dump(exclude_unset=True, warnings=False) for item in done.output]
    given.append({"role": "user", "content": "And tomorrow?"})
    await client.responses.create(model=MODEL, input=given)
    heard = script.requests[2]["messages"]
    assert [one["role"] for one in heard] == ["user"] * 3
    assert heard[1]["content"].endswith(":\nSunny in Paris.")
    assert heard[2]["content"] == "And tomorrow?"


async def test_metadata_is_checked(http: httpx.AsyncClient) -> None:
    """Strings only, as at OpenAI."""
    answer = await http.post(
        "/v1/responses", json={"model": MODEL, "input": "a", "metadata": {"a": 1}}
    )
    assert refused(answer, 400)["param"] == "metadata.a"


async def test_the_client_without_async_works_as_well(
    gateway: InProcessGateway, server: FakeVllm
) -> None:
    """In a thread of its own: create, stream, retrieve."""
    says(server, Said("Yes it is."))

    def work() -> None:
        with openai.OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
            made = client.responses.create(model=MODEL, input="a")
            assert client.responses.retrieve(made.id) == made
            with client.responses.stream(model=MODEL, input="a") as stream:
                deltas = [one.delta for one in stream if one.type == "response.output_text.delta"]
                assert "".join(deltas) == stream.get_final_response().output_text == "Yes it is."

    await asyncio.to_thread(work)
