"""The two profiles: a client written for one works on the other, but for the listed differences."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

LISTED = {"openai": "fake-chat", "llamastack": "vllm/fake-chat"}
OWNER = {"openai": "vllm", "llamastack": "llama_stack"}
UNKNOWN_PROVIDER = {"openai": 404, "llamastack": 400}


@pytest.fixture(params=["openai", "llamastack"])
def profile(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def gateway(upstream: FakeVllm, profile: str):
    async with InProcessGateway(
        discover=[upstream.url], server={"profile": profile}, models=["fake-chat"]
    ) as gateway:
        yield gateway


async def test_what_is_listed_can_be_called(gateway: InProcessGateway, profile: str) -> None:
    """A client takes an id from the list and chats with it; the answer carries that id."""
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client:
        [model] = [model async for model in client.models.list()]
        assert (model.id, model.owned_by) == (LISTED[profile], OWNER[profile])
        answer = await client.chat.completions.create(
            model=model.id, messages=[{"role": "user", "content": "hi"}]
        )
        assert answer.model == model.id
        assert (await client.models.retrieve(model.id)).id == model.id


@pytest.mark.parametrize("name", ["fake-chat", "vllm/fake-chat"])
async def test_both_forms_of_a_name_work(gateway: InProcessGateway, name: str) -> None:
    """A model is found with and without its provider's name, in either profile."""
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client:
        stream = await client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert {event.model async for event in stream} == {name}


async def test_an_unknown_provider(gateway: InProcessGateway, profile: str) -> None:
    """OpenAI's way is 404, LlamaStack's 400."""
    async with gateway.client() as client:
        answer = await client.get("/v1/providers/nope")
    assert answer.status_code == UNKNOWN_PROVIDER[profile]
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
