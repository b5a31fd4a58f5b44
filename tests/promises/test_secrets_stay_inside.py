"""The gateway's credentials for a model server go to that server and nowhere else; the caller's own
go to no server, unless a backend is set to get them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.expect import refused
from tests.support.gateway import GatewayProcess
from tests.support.inprocess import InProcessGateway, until
from tests.support.upstream import FakeVllm, faults

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
SECRET = "sk-inside-7f3a9b"
CALLERS_OWN = {
    "authorization": "Bearer sk-caller",
    "proxy-authorization": "Basic Y2FsbGVy",
    "cookie": "session=caller",
    "x-api-key": "caller",
    "api-key": "caller",
    "openai-organization": "org-caller",
    "x-forwarded-for": "10.9.8.7",
    "connection": "keep-alive, x-hop",
    "keep-alive": "timeout=9",
    "te": "trailers",
    "upgrade": "h2c",
    "x-hop": "caller",
    "accept-encoding": "br",
    "user-agent": "caller/1.0",
}


@pytest.fixture
async def guarded():
    """A model server that wants the secret."""
    async with FakeVllm(["fake-chat"], api_key=SECRET) as server:
        yield server


def with_key(server: FakeVllm, **more: Any) -> InProcessGateway:
    return InProcessGateway(
        discover=[{"url": server.url, "api_key": SECRET, **more}], models=["fake-chat"]
    )


async def test_the_key_goes_to_its_server(guarded):
    """As a bearer token on every call: discovery, JSON and streams."""
    async with with_key(guarded) as gateway, gateway.client() as client:
        for stream in (False, True):
            answer = await client.post(PATH, json={**CHAT, "stream": stream})
            assert answer.status_code == 200
    assert {request.headers.get("authorization") for request in guarded.requests} == {
        f"Bearer {SECRET}"
    }


async def test_the_key_is_shown_nowhere(guarded):
    """Not on any page, in any error, span, metric or log line of a real process."""
    config = {
        "discover": [{"url": guarded.url, "api_key": "${TEST_TOKEN}"}],
        "telemetry": {"log_level": "debug", "access_log": True},
        "routing": {"breaker_failures": 10_000},  # a probe would take a fault
    }
    seen = []
    async with GatewayProcess(
        config,
        models=["fake-chat"],
        env={"TEST_TOKEN": SECRET, "OTEL_TRACES_EXPORTER": "console"},
    ) as gateway:
        async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
            for fault in (
                None,
                faults.unauthorized(),
                faults.redirects_to_login(),
                faults.html(),
                faults.resets_before_head(),
                faults.sends(b"nonsense"),
            ):
                guarded.behave(PATH, fault, times=1)
                answer = await client.post(PATH, json=CHAT)
                seen += [answer.text, str(answer.headers)]
            for page in (
                "/v1/providers",
                "/v1/providers/vllm",
                "/metrics",
                "/readyz",
                "/v1/models",
                "/v1/inspect/routes",
            ):
                answer = await client.get(page)
                assert answer.status_code == 200
                seen.append(answer.text)
        gateway.terminate()
        seen.append(gateway.log())
    assert "chat fake-chat" in seen[-1]
    assert [text for text in seen if SECRET in text] == []


async def test_the_key_is_on_no_span(guarded):
    """Neither of a call that works nor of one that doesn't."""
    async with with_key(guarded) as gateway, gateway.client() as client:
        await client.post(PATH, json=CHAT)
        guarded.behave(PATH, faults.unauthorized())
        await client.post(PATH, json=CHAT)
        spans = "".join(span.to_json() for span in gateway.spans())
    assert "chat fake-chat" in spans
    assert SECRET not in spans


async def test_a_url_with_a_password_is_shown_without(upstream):
    """Credentials in a URL stay out of the list of providers and of errors."""
    url = upstream.url.replace("://", f"://user:{SECRET}@")
    async with (
        InProcessGateway(discover=[url], models=["fake-chat"]) as gateway,
        gateway.client() as client,
    ):
        pages = [await client.get(page) for page in ("/v1/providers", "/v1/models", "/metrics")]
        upstream.behave(PATH, faults.resets_before_head())
        pages.append(await client.post(PATH, json=CHAT))
    assert SECRET not in "".join(page.text for page in pages)


async def test_a_wrong_key_of_ours_is_no_fault_of_the_caller(guarded):
    """A 401 about the gateway's own key is a 502: the caller can't mend it."""
    async with (
        InProcessGateway(
            configured=[
                {
                    "id": "fake-chat",
                    "backends": [{"url": guarded.url, "api_key": "sk-outdated"}],
                }
            ]
        ) as gateway,
        gateway.client() as client,
    ):
        answer = await client.post(PATH, json=CHAT, headers={"authorization": "Bearer x"})
    assert refused(answer, 502)["code"] == "upstream_refused_credentials"
    assert "sk-outdated" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_the_caller_s_credentials_go_nowhere(upstream, stream):
    """Nor do cookies, addresses, hop-by-hop headers or anything else of the caller's."""
    async with (
        InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway,
        gateway.client() as client,
    ):
        await client.post(PATH, json={**CHAT, "stream": stream}, headers=CALLERS_OWN)
    received = upstream.requests_to(PATH)[-1].headers
    assert {name: value for name, value in received.items() if "caller" in value} == {}
    assert received.keys() == {
        "host",
        "user-agent",
        "accept-encoding",
        "content-type",
        "content-length",
        "x-request-id",
        "traceparent",
    }
    assert received["host"] == upstream.root_url.removeprefix("http://")
    assert received["accept-encoding"] == "identity"


async def test_what_the_model_server_may_use_travels(upstream):
    """`baggage` is for traces, `anthropic-version` and the others for vLLM."""
    headers = {
        "baggage": "tenant=blue",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "x",
        "x-data-parallel-rank": "1",
        "x-session-id": "s1",
    }
    async with (
        InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway,
        gateway.client() as client,
    ):
        await client.post(PATH, json=CHAT, headers=headers)
    assert headers.items() <= upstream.requests_to(PATH)[-1].headers.items()


async def test_headers_travel_where_a_backend_is_set_to_get_them(guarded):
    """`forward_headers: [authorization]` hands the caller's own token on."""
    backend = {"url": guarded.url, "forward_headers": ["Authorization", "x-tenant"]}
    async with (
        InProcessGateway(configured=[{"id": "fake-chat", "backends": [backend]}]) as gateway,
        gateway.client() as client,
    ):
        headers = {"authorization": f"Bearer {SECRET}", "x-tenant": "blue", "cookie": "a=b"}
        allowed = await client.post(PATH, json=CHAT, headers=headers)
        refusal = await client.post(PATH, json=CHAT, headers={"authorization": "Bearer wrong"})
        missing = await client.post(PATH, json=CHAT)
    assert allowed.status_code == 200
    received = guarded.requests_to(PATH)[-3].headers
    assert (received["x-tenant"], "cookie" in received) == ("blue", False)
    for answer in (refusal, missing):
        assert refused(answer, 401)["type"] == "authentication_error"


async def test_our_key_wins_over_a_forwarded_one(guarded):
    """With both, the server gets one authorization header, ours; a 401 is then about ours."""
    async with (
        with_key(guarded, forward_headers=["authorization"]) as gateway,
        gateway.client() as client,
    ):
        headers = {"authorization": "Bearer sk-caller"}
        assert (await client.post(PATH, json=CHAT, headers=headers)).status_code == 200
        assert guarded.requests_to(PATH)[-1].headers["authorization"] == f"Bearer {SECRET}"
        guarded.behave(PATH, faults.unauthorized())
        refused(await client.post(PATH, json=CHAT, headers=headers), 502)


@pytest.mark.alone
async def test_a_key_in_a_file_is_read_again(guarded, tmp_path):
    """A rotated Secret is in use within a second and a half, without a restart."""
    file = tmp_path / "token"
    file.write_text("sk-old\n")
    guarded.vllm.api_key = "sk-old"
    async with (
        InProcessGateway(
            discover=[{"url": guarded.url, "api_key_file": str(file)}], models=["fake-chat"]
        ) as gateway,
        gateway.client() as client,
    ):
        assert (await client.post(PATH, json=CHAT)).status_code == 200
        guarded.vllm.api_key = "sk-new"
        replace(file, "sk-new\n")
        begun = time.monotonic()
        while (await client.post(PATH, json=CHAT)).status_code != 200:
            assert time.monotonic() - begun < 1.5
            await asyncio.sleep(0.05)
        file.unlink()  # half a rotation: the last token stays in use
        await asyncio.sleep(1.1)
        assert (await client.post(PATH, json=CHAT)).status_code == 200
        replace(file, "no\nheader")  # can't be sent, and must not be
        await asyncio.sleep(1.1)
        assert (await client.post(PATH, json=CHAT)).status_code == 200


def replace(file: Path, text: str) -> None:
    """As Kubernetes updates a mounted Secret: another file under the same name."""
    fresh = file.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(file)


async def test_the_log_of_a_failure_names_the_server_and_no_secret(guarded, caplog):
    """The line that operators need has the address; the address has no credentials."""
    caplog.set_level(logging.DEBUG)
    async with with_key(guarded) as gateway, gateway.client() as client:
        guarded.behave(PATH, faults.vllm_error(500))
        await client.post(PATH, json=CHAT)
        await until(
            lambda: [line for line in caplog.records if line.name == "gateway.access"], "log line"
        )
    line = next(line for line in caplog.records if line.name == "gateway.access")
    assert line.server == guarded.root_url
    assert SECRET not in json.dumps([str(vars(record)) for record in caplog.records])
