"""Models are found on the servers that run them: they appear when a server comes up, stay when it
goes down, are one entry where two servers run them, and a request goes to whichever works."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
SOON = {"discover_interval_seconds": 0.1}


async def listed(client: httpx.AsyncClient, path: str = "/v1/models") -> list[dict[str, Any]]:
    answer = await client.get(path)
    assert answer.status_code == 200
    return answer.json()["data"]


async def names(client: httpx.AsyncClient) -> list[str]:
    return sorted(model["id"] for model in await listed(client))


async def until_listed(client: httpx.AsyncClient, *expected: str, within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while await names(client) != sorted(expected):
            await asyncio.sleep(0.02)


def chats(server: FakeVllm) -> int:
    return sum(request.method == "POST" for request in server.requests_to(PATH))


def one_model(*backends: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Settings with the one model `fake-chat` on these backends."""
    return {"configured": [{"id": "fake-chat", "kind": "chat", "backends": backends, **more}]}


# -- finding them ----------------------------------------------------------------------------------


async def test_every_server_s_models_are_there(upstream, embedding_upstream):
    """Kinds and dimensions are found out, and LlamaStack's fields say them."""
    async with (
        FakeVllm(["one", "two"], max_model_len=4096) as third,
        InProcessGateway(
            discover=[upstream.url, embedding_upstream.url, third.root_url],
            models=["fake-chat", "fake-embedding", "one", "two"],
        ) as gateway,
        gateway.client() as client,
    ):
        found = {model["id"]: model for model in await listed(client)}
        same = {model["id"]: model for model in await listed(client, "/v1/openai/v1/models")}
    assert found == same
    assert {name: model["model_type"] for name, model in found.items()} == {
        "fake-chat": "llm",
        "fake-embedding": "embedding",
        "one": "llm",
        "two": "llm",
    }
    assert found["fake-embedding"]["metadata"]["embedding_dimension"] == 384
    assert found["fake-embedding"]["custom_metadata"]["embedding_dimension"] == 384
    assert "embedding_dimension" not in found["fake-chat"]["metadata"]
    assert found["one"]["metadata"]["context_length"] == 4096
    assert found["fake-chat"]["provider_id"] == "vllm"
    assert found["two"]["provider_id"] == "vllm-3"


async def test_a_server_that_comes_up_late_brings_its_model(upstream):
    """No restart: the model appears when its server does."""
    await upstream.stop()
    async with (
        InProcessGateway(discover=[upstream.url], **SOON) as gateway,
        gateway.client() as client,
    ):
        assert await names(client) == []
        refused(await client.post(PATH, json=CHAT), 404)
        await upstream.start()
        await until_listed(client, "fake-chat")
        assert (await client.post(PATH, json=CHAT)).status_code == 200


async def test_a_server_that_goes_down_keeps_its_model(upstream):
    """ "Unavailable" is truer than "does not exist"; when it is back, so is the model."""
    async with (
        InProcessGateway(discover=[upstream.url], models=["fake-chat"], **SOON) as gateway,
        gateway.client() as client,
    ):
        created = (await listed(client))[0]["created"]
        await upstream.stop()
        [state] = gateway.application.discovery.servers
        await until(lambda: state.up is False, "the server down")
        assert await names(client) == ["fake-chat"]
        error = refused(await client.post(PATH, json=CHAT), 503)
        assert error["code"] == "upstream_unreachable"
        [provider] = await listed(client, "/v1/providers")
        assert provider["health"]["status"] == "Error"
        assert (await client.get("/readyz")).json()["servers"] == {"up": 0, "total": 1}
        await upstream.start()
        await until(lambda: state.up, "the server up")
        assert (await client.post(PATH, json=CHAT)).status_code == 200
        assert (await listed(client))[0]["created"] == created


async def test_a_server_that_serves_others_now_is_believed(upstream):
    """A server that is up and no longer lists a model doesn't have it any more."""
    async with (
        InProcessGateway(discover=[upstream.url], models=["fake-chat"], **SOON) as gateway,
        gateway.client() as client,
    ):
        upstream.vllm.models[:] = ["newer"]
        await until_listed(client, "newer")
        refused(await client.post(PATH, json=CHAT), 404)


@pytest.mark.alone
async def test_a_hanging_server_holds_up_nobody(upstream):
    """Neither the start nor the other servers' models."""
    clock = asyncio.get_running_loop().time
    async with FakeVllm(["never"]) as hanging:
        hanging.behave("*", faults.hangs_before_head())
        begun = clock()
        async with (
            InProcessGateway(discover=[hanging.url, upstream.url]) as gateway,
            gateway.client() as client,
        ):
            assert await names(client) == ["fake-chat"]
            assert clock() - begun < 5
            assert (await client.post(PATH, json=CHAT)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"{}",
        b'{"data": null}',
        b'{"data": "models"}',
        b'{"data": [null]}',
        b'{"data": [{"name": "x"}]}',
        b'{"data": [{"id": 5}]}',
        b'{"data": [{"id": null}]}',
        b'{"data": [{"id": "x", "max_model_len": "long"}]}',
        b"<html>",
        b'{"data": ' + b"[" * 100_000,
    ],
)
async def test_a_server_that_lists_nonsense_is_down(upstream, body):
    """Whatever it says, the gateway goes on, and asks again."""
    async with FakeVllm(["late"]) as odd:
        odd.behave("/v1/models", faults.answers_with(200, body), times=3)
        async with (
            InProcessGateway(
                discover=[odd.url, upstream.url], models=["fake-chat"], **SOON
            ) as gateway,
            gateway.client() as client,
        ):
            state = gateway.application.discovery.servers[0]
            assert state.up is False, state.message
            await until_listed(client, "fake-chat", "late")


async def test_odd_embeddings_are_survived(embedding_upstream, upstream):
    """The same where its dimension is asked for."""
    path = "/v1/embeddings"
    for body in (b"{}", b'{"data": [{"embedding": 5}]}', b'{"data": {"0": 1}}', b"[1]"):
        embedding_upstream.behave(path, faults.answers_with(200, body), times=1)
    async with (
        InProcessGateway(
            discover=[embedding_upstream.url, upstream.url], models=["fake-chat"], **SOON
        ) as gateway,
        gateway.client() as client,
    ):
        await until_listed(client, "fake-chat", "fake-embedding")


# -- several servers -------------------------------------------------------------------------------


async def test_one_model_on_two_servers_is_one_entry(upstream):
    """It is listed once, and both get requests."""
    async with (
        FakeVllm(["fake-chat"]) as twin,
        InProcessGateway(discover=[upstream.url, twin.url], models=["fake-chat"]) as gateway,
        gateway.client() as client,
    ):
        await until(lambda: len(gateway.application.catalog.get("fake-chat").backends) == 2, "both")
        assert await names(client) == ["fake-chat"]
        for _ in range(40):
            assert (await client.post(PATH, json=CHAT)).status_code == 200
        assert chats(upstream) + chats(twin) == 40
        assert min(chats(upstream), chats(twin)) >= 5


async def test_when_one_of_two_dies_nobody_notices(upstream):
    """Requests that find the dead one go to the other."""
    async with (
        FakeVllm(["fake-chat"]) as twin,
        InProcessGateway(discover=[upstream.url, twin.url], models=["fake-chat"]) as gateway,
        gateway.client() as client,
    ):
        await until(lambda: len(gateway.application.catalog.get("fake-chat").backends) == 2, "both")
        await twin.stop()
        for stream in (False, True) * 10:
            answer = await client.post(PATH, json={**CHAT, "stream": stream})
            assert answer.status_code == 200


async def test_weights_are_shares(upstream):
    """A backend of weight 9 gets about nine times what one of weight 1 gets."""
    async with FakeVllm(["fake-chat"]) as small:
        backends = {"url": upstream.url, "weight": 9}, {"url": small.url, "weight": 1}
        async with InProcessGateway(**one_model(*backends)) as gateway, gateway.client() as client:
            for _ in range(100):
                await client.post(PATH, json=CHAT)
        assert 1 <= chats(small) <= 30
        assert chats(upstream) == 100 - chats(small)


FALLBACKS = {
    "refused": None,
    "503": faults.unavailable(),
    "500": faults.vllm_error(500),
    "429": faults.rate_limited(),
    "rst before head": faults.resets_before_head(),
    "eof before head": faults.closes_before_head(),
    "overloaded": faults.overloaded(),
    "login page": faults.html(),
    "redirect": faults.redirects_to_login(),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("name", FALLBACKS)
async def test_the_next_backend_takes_over(upstream, name, stream):
    """By priority, while the caller has got nothing, an overload in the first event included."""
    async with FakeVllm(["fake-chat"]) as spare:
        backends = {"url": spare.url, "priority": 1}, {"url": upstream.url, "priority": 0}
        async with InProcessGateway(**one_model(*backends)) as gateway, gateway.client() as client:
            first = await client.post(PATH, json={**CHAT, "stream": stream})
            assert first.status_code == 200
            assert (chats(upstream), chats(spare)) == (1, 0)
            if FALLBACKS[name] is None:
                await upstream.stop()
            else:
                upstream.behave(PATH, FALLBACKS[name])
            answer = await client.post(PATH, json={**CHAT, "stream": stream})
            assert answer.status_code == 200
            assert b"Paris" in answer.content
            assert chats(spare) == 1


@pytest.mark.parametrize("status", [400, 404, 409])
async def test_a_caller_s_mistake_is_not_tried_elsewhere(upstream, status):
    """A second server would only say the same."""
    async with FakeVllm(["fake-chat"]) as spare:
        backends = {"url": upstream.url}, {"url": spare.url, "priority": 1}
        upstream.behave(PATH, faults.vllm_error(status, "your mistake"))
        async with InProcessGateway(**one_model(*backends)) as gateway, gateway.client() as client:
            refused(await client.post(PATH, json=CHAT), status)
        assert chats(spare) == 0


async def test_a_begun_stream_is_not_tried_elsewhere(upstream):
    """The caller has half an answer; another half of another would be worse than an error."""
    async with FakeVllm(["fake-chat"]) as spare:
        backends = {"url": upstream.url}, {"url": spare.url, "priority": 1}
        upstream.behave(PATH, faults.resets_after(events=2))
        async with InProcessGateway(**one_model(*backends)) as gateway, gateway.client() as client:
            answer = await client.post(PATH, json={**CHAT, "stream": True})
        assert b'"error"' in answer.content
        assert chats(spare) == 0


async def test_when_every_backend_fails_the_last_error_is_told(upstream):
    """With its own status."""
    async with FakeVllm(["fake-chat"]) as spare:
        backends = {"url": upstream.url}, {"url": spare.url, "priority": 1}
        upstream.behave(PATH, faults.vllm_error(500))
        spare.behave(PATH, faults.unavailable(retry_after="9"))
        async with InProcessGateway(**one_model(*backends)) as gateway, gateway.client() as client:
            answer = await client.post(PATH, json=CHAT)
    refused(answer, 503)
    assert answer.headers["retry-after"] == "9"


# -- names -----------------------------------------------------------------------------------------


async def test_aliases_and_provider_names_resolve(upstream):
    """`gpt-4o` in old code and LlamaStack's `vllm/NAME` mean the same model."""
    backend = {"url": upstream.url, "model": "fake-chat"}
    settings = {"configured": [{"id": "granite", "aliases": ["gpt-4o"], "backends": [backend]}]}
    async with InProcessGateway(**settings) as gateway, gateway.client() as client:
        for name in ("granite", "gpt-4o", "vllm/granite", "vllm/gpt-4o"):
            answer = await client.post(PATH, json={**CHAT, "model": name})
            assert answer.status_code == 200, name
            assert upstream.requests_to(PATH)[-1].json["model"] == "fake-chat"
            found = await client.get(f"/v1/models/{name}")
            assert found.json()["id"] == "granite"
        assert await names(client) == ["granite"]
        for name in ("granite/vllm", "other/granite", "GRANITE", ""):
            refused(await client.post(PATH, json={**CHAT, "model": name}), 404)


async def test_a_configured_name_wins_over_a_discovered_one(upstream):
    """What the file says about a model is not mixed with what a server says."""
    async with FakeVllm(["fake-chat"]) as other:
        async with (
            InProcessGateway(discover=[other.url], **one_model({"url": upstream.url})) as gateway,
            gateway.client() as client,
        ):
            for _ in range(5):
                await client.post(PATH, json=CHAT)
        assert (chats(upstream), chats(other)) == (5, 0)


async def test_ids_with_slashes_retrieve():
    """Hugging Face's names have one, fine-tunes more; encoded or not."""
    name = "ibm-granite/granite-3.1-8b/lora"
    async with (
        FakeVllm([name]) as server,
        InProcessGateway(discover=[server.url], models=[name]) as gateway,
        gateway.client() as client,
        openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as sdk,
    ):
        for path in (name, name.replace("/", "%2F")):
            for prefix in ("/v1", "/v1/openai/v1"):
                assert (await client.get(f"{prefix}/models/{path}")).json()["id"] == name
        assert (await sdk.models.retrieve(name)).id == name
        assert [model.id async for model in sdk.models.list()] == [name]


async def test_anthropic_s_clients_get_their_list(upstream):
    """A request with `anthropic-version` gets Anthropic's shape."""
    async with (
        InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway,
        gateway.client() as client,
    ):
        answer = await client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
    body = answer.json()
    assert body.keys() == {"data", "has_more", "first_id", "last_id"}
    assert (body["has_more"], body["first_id"], body["last_id"]) == (
        False,
        "fake-chat",
        "fake-chat",
    )
    [model] = body["data"]
    assert model.keys() == {"id", "type", "display_name", "created_at"}
    assert model["type"] == "model"
    assert model["created_at"].endswith("+00:00")
