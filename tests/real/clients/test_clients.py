"""Every client library works with nothing changed but its base URL."""

from __future__ import annotations

import re

import pytest

from tests.real.clients import catalog
from tests.real.clients.conftest import Said
from tests.real.clients.environments import Client
from tests.real.conftest import RealVllm

ANSWER = "The capital of France is Paris."  # the chat model's, at temperature 0
TOKENS = 8  # of that answer, with the one that ends it
DIMENSIONS = 384

every_client = pytest.mark.parametrize("client", catalog.ALL, ids=lambda client: client.name)
embedding_clients = pytest.mark.parametrize(
    "client",
    [one for one in catalog.ALL if one not in (catalog.ANTHROPIC, catalog.AGENTS)],
    ids=lambda client: client.name,
)
openai_sdks = pytest.mark.parametrize(
    "client",
    [catalog.OPENAI_2, catalog.OPENAI_3, catalog.OPENAI_NODE],
    ids=lambda client: client.name,
)
openai_python = pytest.mark.parametrize(
    "client", [catalog.OPENAI_2, catalog.OPENAI_3], ids=lambda client: client.name
)


@every_client
def test_chat(client: Client, said: Said) -> None:
    """A chat call gives the model's answer."""
    assert said(client)["chat"] == ANSWER


@every_client
def test_streaming_chat(client: Client, said: Said) -> None:
    """A streamed chat gives the same answer, piece by piece."""
    assert said(client)["stream"] == ANSWER
    assert said(client)["pieces"] > 1


@embedding_clients
def test_embeddings(client: Client, said: Said) -> None:
    """Two texts give two vectors of the model's size."""
    assert said(client)["dimensions"] == [DIMENSIONS, DIMENSIONS]


@every_client
def test_llamastack_path(client: Client, said: Said) -> None:
    """A base URL that ends in `/v1/openai/v1`, as for LlamaStack 0.2 and 0.3, works as well."""
    assert said(client)["legacy"] == ANSWER


@openai_python
def test_the_sdk_is_the_version_meant(client: Client, said: Said) -> None:
    """The 2.x environment has a 2.x SDK, and the 3.x one a 3.x."""
    assert said(client)["version"].startswith(client.name.removeprefix("openai-") + ".")


@openai_python
def test_usage_in_streams(client: Client, said: Said) -> None:
    """Usage comes on one chunk of a stream that asked for it, and on none that did not."""
    heard = said(client)
    assert heard["usage"] == TOKENS
    assert heard["stream_usage"] == [TOKENS]
    assert heard["unasked_usage"] == []
    assert heard["empty_choices"] == 0


@openai_python
def test_base64_vectors(client: Client, said: Said) -> None:
    """The SDK's own base64 encoding gives the same numbers as plain floats."""
    assert said(client)["same_vectors"]


@openai_python
def test_models(client: Client, said: Said, vllm_chat: RealVllm, vllm_embeddings: RealVllm) -> None:
    """The models of both servers are listed."""
    assert {vllm_chat.model, vllm_embeddings.model} <= set(said(client)["models"])


@openai_sdks
def test_request_id(client: Client, said: Said) -> None:
    """The SDK finds our request id on an answer and on an error."""
    heard = said(client)
    assert heard["request_id"]
    assert heard["unknown_model"]["request_id"]
    assert heard["request_id"] != heard["unknown_model"]["request_id"]


@openai_sdks
def test_unknown_model(client: Client, said: Said) -> None:
    """An unknown model raises NotFoundError, and its message names the model."""
    error = said(client)["unknown_model"]
    assert (error["class"], error["status"]) == ("NotFoundError", 404)
    assert "no-such-model" in error["message"]


@openai_python
def test_unknown_model_in_a_stream(client: Client, said: Said) -> None:
    """With stream=True it raises the same at once, before any chunk."""
    error = said(client)["unknown_model_stream"]
    assert (error["class"], error["status"]) == ("NotFoundError", 404)


@openai_sdks
def test_embedding_model_used_for_chat(
    client: Client, said: Said, vllm_embeddings: RealVllm
) -> None:
    """An embedding model in a chat raises BadRequestError that names the model."""
    error = said(client)["embedding_model"]
    assert (error["class"], error["status"]) == ("BadRequestError", 400)
    assert vllm_embeddings.model in error["message"]


@openai_sdks
def test_malformed_parameter(client: Client, said: Said) -> None:
    """A temperature that is no number raises BadRequestError with `param` set."""
    error = said(client)["hot"]
    assert (error["class"], error["param"]) == ("BadRequestError", "temperature")


@openai_python
def test_error_codes_are_strings(client: Client, said: Said) -> None:
    """`code` is a string or None, as at OpenAI, and never vLLM's number."""
    errors = [said(client)[name] for name in ("unknown_model", "embedding_model", "hot")]
    assert all(error["code"] is None or isinstance(error["code"], str) for error in errors)
    assert all(re.fullmatch(r"[a-z_]+", error["type"]) for error in errors)


@pytest.mark.parametrize("client", [catalog.OGX], ids=lambda client: client.name)
def test_ogx_errors(client: Client, said: Said) -> None:
    """LlamaStack's client raises NotFoundError for an unknown model too."""
    error = said(client)["unknown_model"]
    assert (error["class"], error["status"]) == ("NotFoundError", 404)


@openai_python
def test_files_and_vector_stores(client: Client, said: Said) -> None:
    """Upload, attach, poll, search, read back and delete: the SDK's own helpers all end."""
    heard = said(client)["documents"]
    assert heard["same_bytes"]
    assert (heard["attached"], heard["uploaded"]) == ("completed", "completed")
    assert heard["batch"] == ["completed", 2]
    assert (heard["counts"], heard["listed"]) == (4, 4)
    assert heard["attributes"] == {"year": 2026, "draft": False}
    assert heard["hit_files"] == ["handbook.md"]
    assert "eleven days" in heard["hit"]
    assert heard["scores"] == sorted(heard["scores"], reverse=True)
    assert "eleven days" in heard["content"]
    assert "LH-407" in heard["content"]
    assert heard["store_deleted"]
    assert heard["file_deleted"]
    assert heard["gone"] == ["NotFoundError", 404]


@pytest.mark.parametrize("client", [catalog.OPENAI_NODE], ids=lambda client: client.name)
def test_files_and_vector_stores_in_node(client: Client, said: Said) -> None:
    """The same from Node, with a file name that isn't ASCII."""
    heard = said(client)["documents"]
    assert heard["attached"] == "completed"
    assert heard["filename"] == "Handbuch für Wärter.txt"
    assert "eleven days" in heard["hit"]
    assert heard["same_bytes"]
    assert heard["store_deleted"]
    assert heard["file_deleted"]


@pytest.mark.parametrize("client", [catalog.OGX], ids=lambda client: client.name)
def test_ogx_vector_stores(client: Client, said: Said) -> None:
    """LlamaStack's client attaches without polling, and searches by words and meaning."""
    heard = said(client)["documents"]
    assert heard["attached"] == "completed"
    assert "LH-407" in heard["hit"]
    assert heard["store_deleted"]
    assert heard["file_deleted"]
    assert heard["gone"] == 404


@openai_python
def test_responses(client: Client, said: Said) -> None:
    """Create, stream, go on, run in the background, read back and delete."""
    heard = said(client)["responses"]
    assert heard["text"] == heard["stream"] == heard["background"] == ANSWER
    assert heard["usage"] == TOKENS
    assert heard["events"][0] == "response.created"
    assert heard["events"][-1] == "response.completed"
    assert heard["items"] == 3
    assert heard["gone"] == ["NotFoundError", 404]


@pytest.mark.parametrize("client", [catalog.OGX], ids=lambda client: client.name)
def test_ogx_agents(client: Client, said: Said) -> None:
    """LlamaStack's client makes and lists responses, talks, uses prompts and runs a batch."""
    heard = said(client)["agents"]
    assert heard["text"] == ANSWER
    assert heard["listed"]
    assert heard["events"] == ["response.created", "response.completed"]
    assert heard["talk"] == ["user", "assistant"]
    assert (heard["version"], heard["versions"]) == (2, 2)
    assert heard["prompted"] in ("completed", "incomplete")
    assert (heard["batch"], heard["line"]) == ("completed", "one")


@pytest.mark.parametrize("client", [catalog.AGENTS], ids=lambda client: client.name)
def test_an_agent_of_openais_sdk(client: Client, said: Said) -> None:
    """It calls a function and uses what came back, searches files, and remembers what was said."""
    heard = said(client)
    assert heard["items"][:2] == ["tool_call_item", "tool_call_output_item"]
    assert heard["called"][0].startswith("It is sunny in ")
    assert heard["continued"]
    assert heard["remembered"] == ["user", "assistant", "user", "assistant"]
    search = heard["search"]
    assert search["status"] == "completed"
    assert "eleven days" in search["found"]
    assert set(search["cited"]) == {"handbook.md"}
    assert search["answered"]


@pytest.mark.parametrize("client", [catalog.LANGCHAIN], ids=lambda client: client.name)
def test_langchain_and_langgraph_on_responses(client: Client, said: Said) -> None:
    """The chat class, an agent, a graph with a tool, and a hosted tool with its citations."""
    heard = said(client)["responses"]
    assert heard["chat"] == heard["stream"] == heard["legacy"] == ANSWER
    assert heard["agent"]  # with a tool that it may call, which makes it another prompt
    assert heard["pieces"] > 1
    assert heard["usage"]["output_tokens"] == TOKENS
    assert heard["id"].startswith("resp_")
    assert heard["continued"]
    assert heard["graph"] == ["human", "ai", "tool", "ai"]
    assert "server_tool_call" in heard["search"]["kinds"]
    assert set(heard["search"]["cited"]) == {"handbook.md"}


@pytest.mark.parametrize("client", [catalog.LLAMA_INDEX], ids=lambda client: client.name)
def test_llama_index_on_responses(client: Client, said: Said) -> None:
    """Its class for the Responses API answers, streams and calls a tool."""
    heard = said(client)["responses"]
    assert heard["chat"] == heard["stream"] == ANSWER
    assert heard["called"] == ["get_weather"]


@pytest.mark.parametrize("client", [catalog.ANTHROPIC], ids=lambda client: client.name)
def test_anthropic_messages(client: Client, said: Said) -> None:
    """Anthropic's SDK assembles the stream, counts tokens and raises NotFoundError."""
    heard = said(client)
    assert heard["final"] == ANSWER
    assert heard["tokens"] > 0
    assert (heard["unknown_model"]["class"], heard["unknown_model"]["status"]) == (
        "NotFoundError",
        404,
    )
