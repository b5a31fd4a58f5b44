"""What vLLM can do, clients can do through the gateway."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

from tests.real.conftest import RealVllm
from tests.support.gateway import GatewayProcess

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def chat(vllm_chat: RealVllm) -> str:
    return vllm_chat.model


@pytest.fixture(scope="module")
def embedding(vllm_embeddings: RealVllm) -> str:
    return vllm_embeddings.model


def asked(gateway: GatewayProcess, path: str, body: dict[str, Any]) -> Any:
    """What a POST is answered, where no client library has it."""
    return httpx.post(gateway.root_url + path, json=body, timeout=120).json()


def test_models_know_their_kind_and_dimension(client: OpenAI, chat: str, embedding: str) -> None:
    """Both models are listed; the embedding model with the dimension that it was asked for."""
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert models[chat]["custom_metadata"]["model_type"] == "llm"
    assert models[embedding]["custom_metadata"]["model_type"] == "embedding"
    assert models[embedding]["custom_metadata"]["embedding_dimension"] == 384


def test_a_forced_tool_call(client: OpenAI, chat: str) -> None:
    """A named, strict tool is called with arguments that fit its schema."""
    answer = client.chat.completions.create(
        model=chat,
        messages=[{"role": "user", "content": "How is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=60,
        temperature=0,
    )
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert "city" in call.function.arguments


def test_a_streamed_tool_call(client: OpenAI, chat: str) -> None:
    """The pieces of a streamed tool call add up to one call."""
    arguments = ""
    for event in client.chat.completions.create(
        model=chat,
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=60,
        temperature=0,
        stream=True,
    ):
        for choice in event.choices:
            for call in choice.delta.tool_calls or ():
                arguments += call.function.arguments or ""
    assert '"city"' in arguments


def test_a_parsed_answer(client: OpenAI, chat: str) -> None:
    """The SDK's `.parse()` gets an object of the class that it asked for."""

    class Capital(BaseModel):
        city: str

    answer = client.chat.completions.parse(
        model=chat, messages=QUESTION, response_format=Capital, max_tokens=40, temperature=0
    )
    assert answer.choices[0].message.parsed.city


def test_vllm_only_fields_pass_through(client: OpenAI, chat: str) -> None:
    """A field that OpenAI doesn't know reaches vLLM and works."""
    answer = client.chat.completions.create(
        model=chat,
        messages=QUESTION,
        extra_body={"structured_outputs": {"choice": ["Lyon", "Nice"]}, "top_k": 5},
        max_tokens=10,
    )
    assert answer.choices[0].message.content in {"Lyon", "Nice"}


def test_logprobs_and_several_choices(client: OpenAI, chat: str) -> None:
    """`logprobs` and `n` come back as OpenAI has them."""
    answer = client.chat.completions.create(
        model=chat, messages=QUESTION, n=2, logprobs=True, top_logprobs=2, max_tokens=4
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


def test_usage_in_a_stream_only_when_asked(client: OpenAI, chat: str) -> None:
    """The usage event is there with `include_usage`, and only then."""
    ask = {"model": chat, "messages": QUESTION, "max_tokens": 3, "stream": True}
    asked = list(client.chat.completions.create(**ask, stream_options={"include_usage": True}))
    assert asked[-1].usage.completion_tokens == 3
    assert all(event.usage is None for event in client.chat.completions.create(**ask))


def test_store_is_accepted(client: OpenAI, chat: str) -> None:
    """`store: true` is no error."""
    answer = client.chat.completions.create(
        model=chat, messages=QUESTION, max_tokens=2, store=True, metadata={"a": "b"}
    )
    assert answer.choices


def test_text_completions(client: OpenAI, chat: str) -> None:
    """The completions of old work, streamed too."""
    ask = {"model": chat, "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
    whole = client.completions.create(**ask).choices[0].text
    pieces = [event.choices[0].text for event in client.completions.create(**ask, stream=True)]
    assert "Paris" in whole
    assert "".join(pieces) == whole


def test_embeddings_in_both_encodings(client: OpenAI, embedding: str) -> None:
    """base64 (the SDK's default) and float give the same vectors; token ids are taken too."""
    ask = {"model": embedding, "input": ["hello world", "a cat sat"]}
    floats = client.embeddings.create(**ask, encoding_format="float").data
    packed = client.embeddings.create(**ask).data
    for one, other in zip(floats, packed, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert len(client.embeddings.create(model=embedding, input=[[101, 102]]).data) == 1


def test_reranking_in_its_three_forms(gateway: GatewayProcess, embedding: str) -> None:
    """The kitten is nearer to the cat than the car is, whoever asks."""
    ask = {"model": embedding, "query": "cat", "documents": ["car", "kitten"]}
    for path in ("/v1/rerank", "/v2/rerank"):
        results = asked(gateway, path, ask)["results"]
        assert [result["index"] for result in results] == [1, 0]
    ask = {"model": embedding, "query": "cat", "items": ["car", "kitten"], "max_num_results": 1}
    data = asked(gateway, "/v1alpha/inference/rerank", ask)["data"]
    assert [item["index"] for item in data] == [1]
    assert set(data[0]) == {"index", "relevance_score"}


def test_tokens_there_and_back(gateway: GatewayProcess, chat: str) -> None:
    """A text's tokens are that text again."""
    text = "The capital of France"
    ask = {"model": chat, "prompt": text, "add_special_tokens": False}
    tokens = asked(gateway, "/tokenize", ask)["tokens"]
    back = asked(gateway, "/v1/detokenize", {"model": chat, "tokens": tokens})
    assert back["prompt"] == text


def test_anthropic_messages(gateway: GatewayProcess, chat: str) -> None:
    """A message is answered, its tokens are counted."""
    ask = {"model": chat, "messages": QUESTION}
    message = asked(gateway, "/v1/messages", {**ask, "max_tokens": 20})
    assert message["content"][0]["text"]
    counted = asked(gateway, "/v1/messages/count_tokens", ask)
    assert counted["input_tokens"] == message["usage"]["input_tokens"]


def test_vllms_own_refusals_name_the_parameter(client: OpenAI, chat: str) -> None:
    """What only vLLM can know is refused with the parameter and the code that OpenAI uses."""
    with pytest.raises(BadRequestError) as too_hot:
        client.chat.completions.create(model=chat, messages=QUESTION, temperature=3)
    assert too_hot.value.param == "temperature"
    long = [{"role": "user", "content": "word " * 4000}]
    with pytest.raises(BadRequestError) as too_long:
        client.chat.completions.create(model=chat, messages=long)
    assert (too_long.value.param, too_long.value.code) == ("messages", "context_length_exceeded")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(BadRequestError) as blind:
        client.chat.completions.create(
            model=chat, messages=[{"role": "user", "content": [picture]}]
        )
    assert blind.value.param == "messages"


def test_wrong_models(client: OpenAI, chat: str, embedding: str) -> None:
    """An unknown model is 404, one of another kind is 400 and says what it is for."""
    with pytest.raises(NotFoundError) as unknown:
        client.chat.completions.create(model="nope", messages=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(BadRequestError, match="is for embeddings, not for chat"):
        client.chat.completions.create(model=embedding, messages=QUESTION)
    with pytest.raises(BadRequestError, match="is for chat"):
        client.embeddings.create(model=chat, input="hi")
