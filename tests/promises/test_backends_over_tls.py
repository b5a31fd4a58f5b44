"""Model servers are reached over TLS with their own private CA and client certificate, on every
call, discovery included; a certificate that doesn't check out is never accepted."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme

from tests.support.expect import refused
from tests.support.inprocess import InProcessGateway
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
MODES = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


@pytest.fixture
def ca_file(private_ca: trustme.CA, tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(str(file))
    return str(file)


@pytest.fixture
def client_files(private_ca: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """A client certificate and its key, as settings name them."""
    issued = private_ca.issue_cert("gateway@example.org")
    chain, key = tmp_path / "client.pem", tmp_path / "client.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return {"client_cert": str(chain), "client_key": str(key)}


def server_context(ca: trustme.CA, host: str = "127.0.0.1", *, mutual: bool = False) -> Any:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(host).configure_cert(context)
    if mutual:
        ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def gateway_to(upstream: FakeVllm, **backend: Any) -> InProcessGateway:
    """A gateway that finds the model by itself."""
    return InProcessGateway(discover=[{"url": upstream.url, **backend}], models=["fake-chat"])


def told_of(upstream: FakeVllm, **backend: Any) -> InProcessGateway:
    """A gateway that is told of the model, though it may never reach it."""
    backends = [{"url": upstream.url, **backend}]
    return InProcessGateway(configured=[{"id": "fake-chat", "backends": backends}])


async def failure(
    gateway: InProcessGateway, *, stream: bool = False, code: str = "upstream_tls_failed"
) -> dict[str, Any]:
    async with gateway, gateway.client() as client:
        listed = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["fake-chat"]
        [provider] = (await client.get("/v1/providers")).json()["data"]
        assert provider["health"]["status"] == "Error"
        answer = await client.post(PATH, json={**CHAT, "stream": stream})
    error = refused(answer, 502)
    assert error["code"] == code
    return error


async def test_a_private_ca_is_honoured_on_every_call(private_ca, ca_file):
    """Discovery, a plain answer and a stream."""
    async with (
        FakeVllm(["fake-chat"], ssl_context=server_context(private_ca)) as upstream,
        gateway_to(upstream, ca_file=ca_file) as gateway,
        openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(**CHAT)
        assert answer.choices[0].message.content == upstream.vllm.reply
        stream = await client.chat.completions.create(**CHAT, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == upstream.vllm.reply


@MODES
async def test_an_unknown_ca_is_refused(private_ca, stream):
    """Without the CA's file it is a 502 that says so, and the model is still listed."""
    async with FakeVllm(["fake-chat"], ssl_context=server_context(private_ca)) as upstream:
        error = await failure(told_of(upstream), stream=stream)
    assert "certificate" in error["message"]


async def test_another_ca_is_refused(private_ca, tmp_path):
    """A private CA is trusted for what it signed, and for nothing else."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    async with FakeVllm(["fake-chat"], ssl_context=server_context(private_ca)) as upstream:
        await failure(told_of(upstream, ca_file=str(other)))


async def test_a_wrong_host_name_is_refused(private_ca, ca_file):
    """A good certificate of another host."""
    context = server_context(private_ca, "elsewhere.example.org")
    async with FakeVllm(["fake-chat"], ssl_context=context) as upstream:
        await failure(told_of(upstream, ca_file=ca_file))


async def test_a_client_certificate_is_shown(private_ca, ca_file, client_files):
    """Mutual TLS on discovery and traffic."""
    context = server_context(private_ca, mutual=True)
    async with (
        FakeVllm(["fake-chat"], ssl_context=context) as upstream,
        gateway_to(upstream, ca_file=ca_file, **client_files) as gateway,
        gateway.client() as client,
    ):
        for stream in (False, True):
            answer = await client.post(PATH, json={**CHAT, "stream": stream})
            assert answer.status_code == 200


@MODES
async def test_without_a_client_certificate_it_fails(private_ca, ca_file, stream):
    """A server that wants one hangs up (in TLS 1.3 after the handshake) and has seen no request."""
    context = server_context(private_ca, mutual=True)
    async with FakeVllm(["fake-chat"], ssl_context=context) as upstream:
        gateway = told_of(upstream, ca_file=ca_file)
        await failure(gateway, stream=stream, code="upstream_disconnected")
    assert upstream.requests == []


async def test_plain_http_behind_an_https_url_is_refused():
    """A server without TLS is not talked to in the clear."""
    heard = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        await failure(
            InProcessGateway(configured=[{"id": "fake-chat", "backends": [{"url": url}]}])
        )
    assert heard
    assert b"fake-chat" not in b"".join(heard)


async def test_each_backend_has_its_own_trust(private_ca, ca_file, tmp_path):
    """Two servers under two authorities, side by side."""
    other_ca, other_file = trustme.CA(), tmp_path / "other.pem"
    other_ca.cert_pem.write_to_path(str(other_file))
    async with (
        FakeVllm(["one"], ssl_context=server_context(private_ca)) as one,
        FakeVllm(["two"], ssl_context=server_context(other_ca)) as two,
        InProcessGateway(
            discover=[
                {"url": one.url, "ca_file": ca_file},
                {"url": two.url, "ca_file": str(other_file)},
            ],
            models=["one", "two"],
        ) as gateway,
        gateway.client() as client,
    ):
        for model in ("one", "two"):
            assert (await client.post(PATH, json={**CHAT, "model": model})).status_code == 200
