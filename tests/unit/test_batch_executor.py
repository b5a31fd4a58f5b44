"""What runs the lines of batches: models, and responses where somebody makes them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from gateway.batches.executor import ModelExecutor
from gateway.errors import InvalidRequest
from gateway.identity.principal import Principal
from gateway.relay.client import ModelClient
from gateway.routing.catalog import Catalog

pytestmark = pytest.mark.anyio

ME = Principal(project="mine")
ACTIVITY: Any = object()


def raw(**body: Any) -> dict[str, Raw]:
    return {name: Raw(msgspec.json.encode(value)) for name, value in body.items()}


async def test_responses_are_an_endpoint_where_somebody_makes_them():
    """Who asks, the step of the trace and the whole body are handed over."""
    seen: list[Any] = []

    async def create_response(
        principal: Principal, activity: Any, body: dict[str, Any]
    ) -> dict[str, Any]:
        seen.append((principal, activity, body))
        return {"id": "resp_1", "usage": {"input_tokens": 1, "output_tokens": 2}}

    client = ModelClient(Catalog())
    assert "/v1/responses" not in ModelExecutor(client).endpoints
    executor = ModelExecutor(client, create_response)
    assert "/v1/responses" in executor.endpoints
    body = raw(model="m", input=[{"role": "user", "content": "hi"}], store=False)
    answer = await executor.run(ME, ACTIVITY, "/v1/responses", body)
    assert msgspec.json.decode(answer)["id"] == "resp_1"
    given = {"model": "m", "input": [{"role": "user", "content": "hi"}], "store": False}
    assert seen == [(ME, ACTIVITY, given)]


async def test_embeddings_in_bytes_are_refused():
    """They are no JSON, which the output file is made of."""
    executor = ModelExecutor(ModelClient(Catalog()))
    for encoding in ("bytes", "bytes_only", 7, ["float"]):
        body = raw(model="m", input="x", encoding_format=encoding)
        with pytest.raises(InvalidRequest):
            await executor.run(ME, ACTIVITY, "/v1/embeddings", body)
