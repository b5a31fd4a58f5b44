"""Watching Kubernetes' objects, of an API server that ends each watch at once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from adapters.kubernetes.watch import ResourceWatch

pytestmark = pytest.mark.anyio

LISTED = {"metadata": {"resourceVersion": "1"}, "items": []}


@pytest.mark.alone
@pytest.mark.parametrize("status", [200, 410])
async def test_a_server_that_ends_each_watch_at_once_is_not_pressed(status: int):
    """Nothing heard is no reason to ask again without a pause."""
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if "watch" in request.url.params:
            return httpx.Response(status, content=b"")
        return httpx.Response(200, json=LISTED)

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="https://api") as client:
        watch = ResourceWatch(client, "/apis/things")

        async def follow() -> None:
            async for _ in watch.changes():
                pass

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(follow(), 1.5)
    assert 2 <= asked <= 8
