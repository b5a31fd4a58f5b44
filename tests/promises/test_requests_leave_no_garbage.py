"""A request leaves nothing to the garbage collector, whose pauses would be in slow answers."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest

from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

ASKED: dict[str, Any] = {"model": "fake-chat", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("asked", [ASKED, {**ASKED, "stream": True}], ids=["plain", "stream"])
async def test_no_object_of_the_gateway_is_in_a_cycle_when_an_answer_is_out(
    upstream: FakeVllm, asked: dict[str, Any]
):
    """All of a request goes when its last name does."""
    async with (
        InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway,
        gateway.client() as client,
    ):
        for _ in range(5):
            await client.post("/v1/chat/completions", json=asked)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await client.post("/v1/chat/completions", json=asked)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = (type(one) for one in gc.garbage)
            left = Counter(kind.__name__ for kind in kinds if kind.__module__.startswith("gateway"))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert max(left.values(), default=0) < 20, left
