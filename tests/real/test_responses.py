"""Responses on a real vLLM, with tool calls that a small model is made to make."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.real.conftest import RealVllm
from tests.support.gateway import GatewayProcess

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
FORCED = (
    r"<tool_call>\n\{\"name\": \"get_weather\", \"arguments\": "
    r"\{\"city\": \"(Paris|Rome)\"\}\}\n</tool_call>"
)
DOCUMENT = b"# Keeper's handbook\n\nA volunteer gets eleven days of leave a year.\n"


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def chat(vllm_chat: RealVllm) -> str:
    return vllm_chat.model


@pytest.fixture(scope="module")
def store(client: OpenAI, vllm_embeddings: RealVllm) -> Iterator[str]:
    """A vector store with one document."""
    file = client.files.create(file=("handbook.md", DOCUMENT), purpose="assistants")
    made = client.vector_stores.create(name="handbook", file_ids=[file.id])
    client.vector_stores.files.poll(file.id, vector_store_id=made.id)
    yield made.id
    client.vector_stores.delete(made.id)
    client.files.delete(file.id)


def test_an_answer_and_its_stream_are_one(client: OpenAI, chat: str) -> None:
    """At temperature 0 the stream adds up to the plain answer; both count tokens as vLLM does."""
    asked = {"model": chat, "input": "What is the capital of France?", "temperature": 0}
    plain = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        streamed = stream.get_final_response()
    assert plain.output_text == "The capital of France is Paris."
    assert streamed.output_text == plain.output_text
    assert streamed.usage == plain.usage
    assert plain.usage is not None
    assert plain.usage.output_tokens == 8


def test_a_function_is_called_and_its_result_used(client: OpenAI, chat: str) -> None:
    """Named, with arguments held to the schema; the result goes back by the response's id."""
    first = client.responses.create(
        model=chat,
        input="How is the weather in Paris?",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        temperature=0,
        max_output_tokens=60,
    )
    [call] = first.output
    assert call.type == "function_call"
    assert call.arguments.replace(" ", "").replace("\n", "") in (
        '{"city":"Paris"}',
        '{"city":"Rome"}',
    )
    second = client.responses.create(
        model=chat,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_output_tokens=40,
    )
    assert second.output_text


def test_a_call_in_auto_mode(client: OpenAI, chat: str) -> None:
    """A field that the gateway doesn't know reaches vLLM; this one makes the model call."""
    made = client.responses.create(
        model=chat,
        input="How is the weather in Paris?",
        tools=[WEATHER],
        extra_body={"structured_outputs": {"regex": FORCED}},
        temperature=0,
        max_output_tokens=60,
    )
    assert [item.type for item in made.output] == ["function_call"]


def test_documents_are_searched_and_cited(client: OpenAI, chat: str, store: str) -> None:
    """The gateway searches, the model answers, and the answer names the file.

    What so small a model looks for and says differs between processors; there is room for both.
    """
    made = client.responses.create(
        model=chat,
        input="How many days of leave does a volunteer get?",
        tools=[{"type": "file_search", "vector_store_ids": [store], "max_num_results": 2}],
        tool_choice={"type": "file_search"},
        include=["file_search_call.results"],
        temperature=0,
        max_output_tokens=800,
        extra_body={"repetition_penalty": 1.1},
    )
    search, message = made.output
    assert search.type == "file_search_call"
    assert search.results
    assert "eleven days" in (search.results[0].text or "")
    assert message.type == "message"
    assert {note.filename for note in message.content[0].annotations} == {"handbook.md"}


class City(BaseModel):
    """What the model is to say."""

    name: str
    country: str


def test_structured_output(client: OpenAI, chat: str) -> None:
    """`parse` gives an object of the class."""
    made = client.responses.parse(
        model=chat,
        input="Name the capital of France and its country, as JSON.",
        text_format=City,
        temperature=0,
        max_output_tokens=200,
    )
    assert isinstance(made.output_parsed, City)


def test_an_input_that_is_too_long(client: OpenAI, chat: str) -> None:
    """With `truncation: auto` the oldest turns go, and the model answers; else it is an error."""
    long = [
        {"role": role, "content": "The lighthouse stands on a rock. " * 60}
        for role in ("user", "assistant") * 4
    ]
    asked = {
        "model": chat,
        "input": [*long, {"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "max_output_tokens": 20,
    }
    assert client.responses.create(**asked, truncation="auto").output_text
    with pytest.raises(Exception, match="maximum context length") as refused:
        client.responses.create(**asked)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "input"


def test_a_context_is_counted_and_summed_up(client: OpenAI, chat: str) -> None:
    """vLLM's own tokenizer counts; the summary stands in for what was said."""
    counted = client.responses.input_tokens.count(
        model=chat, input="What is the capital of France?"
    )
    made = client.responses.create(
        model=chat, input="What is the capital of France?", max_output_tokens=20
    )
    assert made.usage is not None
    assert counted.input_tokens == made.usage.input_tokens
    compacted = client.responses.compact(model=chat, previous_response_id=made.id)
    more = client.responses.create(
        model=chat,
        input=[
            *compacted.model_dump(exclude_none=True)["output"],
            {"role": "user", "content": "Go on."},
        ],
        max_output_tokens=20,
    )
    assert more.status in ("completed", "incomplete")
