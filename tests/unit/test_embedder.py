"""Vectors for the gateway's own needs: batches, order, defaults, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.embeddings.embedder import Embedder
from gateway.errors import InvalidRequest, ModelNotFound, UpstreamError, WrongKind
from gateway.observability.activity import Activity
from gateway.settings import EmbeddingSettings
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"
MODEL = "fake-embedding"


@pytest.fixture
async def gateway(
    upstream: FakeVllm, embedding_upstream: FakeVllm
) -> AsyncIterator[InProcessGateway]:
    async with InProcessGateway(
        discover=[upstream.url, embedding_upstream.url],
        models=["fake-chat", MODEL],
        embedding={"batch_size": 2, "concurrency": 2},
    ) as gateway:
        yield gateway


def job(gateway: InProcessGateway) -> Any:
    return Activity.of_job(gateway.application.telemetry, "ingest")


async def test_vectors_come_in_the_order_of_their_texts(gateway, embedding_upstream):
    """Five texts go out in batches of two, and every vector is that of its own text."""
    texts = ["one lighthouse", "two boats", "three gulls", "four rocks", "five lamps"]
    embedder = gateway.application.embedder
    before = len(embedding_upstream.requests_to(PATH))
    with job(gateway) as activity:
        together = await embedder.embed(activity, MODEL, texts)
        alone = [(await embedder.embed(activity, MODEL, [text]))[0] for text in texts]
    assert [list(vector) for vector in together] == [list(vector) for vector in alone]
    asked = embedding_upstream.requests_to(PATH)[before : before + 3]
    sizes = [len(json.loads(one.body)["input"]) for one in asked]
    assert sorted(sizes) == [1, 2, 2]


async def test_nothing_is_asked_for_no_texts(gateway, embedding_upstream):
    """An empty list needs no call."""
    before = len(embedding_upstream.requests_to(PATH))
    with job(gateway) as activity:
        assert await gateway.application.embedder.embed(activity, MODEL, []) == []
    assert len(embedding_upstream.requests_to(PATH)) == before


async def test_the_call_is_a_span_below_the_job(gateway, embedding_upstream):
    """The CLIENT span nests under the job's, and its context is what vLLM gets."""
    with job(gateway) as activity, activity.step("embed") as step:
        await gateway.application.embedder.embed(step, MODEL, ["a lamp"])
    call, step_span = await gateway.span(f"embeddings {MODEL}"), await gateway.span("embed")
    root = await gateway.span("ingest")
    assert call.parent.span_id == step_span.context.span_id
    assert step_span.parent.span_id == root.context.span_id
    assert root.parent is None
    received = embedding_upstream.requests_to(PATH)[-1].headers["traceparent"]
    assert received.split("-")[2] == f"{call.context.span_id:016x}"


async def test_a_job_links_to_the_request_that_caused_it(gateway):
    """It is a trace of its own, so that a long job doesn't stretch the request's trace."""
    cause = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Activity.of_job(gateway.application.telemetry, "ingest", caused_by=cause):
        pass
    span = await gateway.span("ingest")
    [link] = span.links
    assert f"{link.context.trace_id:032x}" == cause.split("-")[1]
    assert span.context.trace_id != link.context.trace_id


async def test_a_step_that_raises_is_a_failed_span(gateway):
    """The error's type is on it, and the exception goes on."""
    with pytest.raises(UpstreamError), job(gateway) as activity, activity.step("index"):
        raise UpstreamError("no")
    assert (await gateway.span("index")).attributes["error.type"] == "bad_upstream_answer"


async def test_the_only_embedding_model_is_the_default(gateway):
    """A store that names no model gets it."""
    assert gateway.application.embedder.model(None).id == MODEL


async def test_a_configured_default_must_be_an_embedding_model(gateway):
    """Another kind, or a model that isn't there, is refused by name."""
    catalog, client = gateway.application.catalog, gateway.application.client
    for name, error in (("fake-chat", WrongKind), ("gone", ModelNotFound)):
        embedder = Embedder(catalog, client, EmbeddingSettings(default_model=name))
        with pytest.raises(error):
            embedder.model(None)


async def test_several_models_and_no_default_is_the_caller_s_to_settle(gateway):
    """The error names the parameter."""
    two = [SimpleNamespace(kind="embedding"), SimpleNamespace(kind="embedding")]
    catalog: Any = SimpleNamespace(models=lambda _: two)
    embedder = Embedder(catalog, gateway.application.client, EmbeddingSettings())
    with pytest.raises(InvalidRequest) as raised:
        embedder.model(None)
    assert raised.value.param == "embedding_model"


async def test_a_text_that_is_too_long_is_the_caller_s_mistake(gateway, embedding_upstream):
    """What the model server refuses comes as its 400, whichever batch it was in."""
    texts = ["short", "short too", "word " * 100_000]
    with job(gateway) as activity, pytest.raises(InvalidRequest):
        await gateway.application.embedder.embed(activity, MODEL, texts)
