"""What every way to a tool server must do: run against real servers of each kind there is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import trustme

from adapters.mcp import McpServer
from gateway.ports import ToolServerAddress, ToolServerFailed, ToolSession
from gateway.settings import ToolSettings
from tests.support.inprocess import until
from tests.support.tool_servers import KINDS, ToolServing

pytestmark = pytest.mark.anyio

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def address_of(serving: ToolServing, **more: Any) -> ToolServerAddress:
    return ToolServerAddress(label="demo", url=serving.url, trusted=True, **more)


def servers(**settings: Any) -> McpServer:
    return McpServer(ToolSettings(**settings))


@pytest.fixture(params=KINDS)
async def serving(request: pytest.FixtureRequest) -> AsyncIterator[ToolServing]:
    async with ToolServing(request.param) as started:
        yield started


@pytest.fixture
async def session(serving: ToolServing) -> AsyncIterator[ToolSession]:
    async with servers().open(address_of(serving)) as opened:
        yield opened


async def test_the_transport_is_found_out(serving: ToolServing, session: ToolSession):
    """The older one where the server knows no other; the session says which."""
    assert session.transport == ("sse" if serving.kind == "sse" else "streamable_http")
    assert session.protocol_version is not None
    assert (session.session_id is not None) == (serving.kind == "sessions")
    assert (session.server_name, session.server_version) == ("demo", "1.2")
    assert (session.server_address, session.server_port) == ("127.0.0.1", serving.port)
    assert session.instructions == "Echo things."


async def test_tools_are_listed(session: ToolSession):
    """With description and schema."""
    tools = {tool.name: tool for tool in await session.list_tools()}
    assert set(tools) == {"echo", "fail", "sleep", "much", "picture"}
    assert tools["echo"].description == "Say it again."
    assert tools["echo"].input_schema["properties"]["text"]["type"] == "string"


async def test_a_tool_is_called(session: ToolSession):
    """Its text comes back."""
    output = await session.call_tool("echo", {"text": "hällo"})
    assert (output.text, output.is_error) == ("hällo", False)
    assert output.content == [{"type": "text", "text": "hällo"}]


async def test_a_tool_that_fails_says_how(session: ToolSession):
    """The call works, and its output is an error."""
    output = await session.call_tool("fail", {"text": "no paper"})
    assert output.is_error
    assert "no paper" in output.text


async def test_an_unknown_tool_is_an_error_of_its_own(session: ToolSession):
    """Either way the protocol has for it; the session goes on."""
    try:
        output = await session.call_tool("nope", {})
        assert output.is_error
        message = output.text
    except ToolServerFailed as failed:
        message = failed.message
    assert "nope" in message
    assert (await session.call_tool("echo", {"text": "on"})).text == "on"


async def test_what_is_no_text_is_named(session: ToolSession):
    """The text says what is there, and the block itself comes along."""
    output = await session.call_tool("picture", {})
    assert output.text == "Look:\n[image of type image/png]"
    assert output.content[1]["data"] == "aGVsbG8="


async def test_a_large_output_is_cut_off(serving: ToolServing):
    """In whole characters, with a notice, within the bound."""
    async with servers(max_output_bytes=1000).open(address_of(serving)) as session:
        output = await session.call_tool("much", {"size": 5000})
    assert len(output.text.encode()) <= 1000
    assert output.text.startswith("ä" * 400)
    assert output.text.endswith("[Cut off: 10000 bytes, of which 1000 are kept.]")
    assert output.content == []


@pytest.mark.alone
async def test_calls_run_side_by_side(session: ToolSession):
    """Ten that sleep take as long as one, and each gets its own answer."""
    started = monotonic()
    calls = [session.call_tool("sleep", {"seconds": 0.3}) for _ in range(10)]
    echoes = [session.call_tool("echo", {"text": str(number)}) for number in range(10)]
    outputs = await asyncio.gather(*calls, *echoes)
    assert monotonic() - started < 2
    assert [one.text for one in outputs] == ["slept"] * 10 + [str(number) for number in range(10)]


@pytest.mark.alone
async def test_cancelling_a_call_cancels_that_call_alone(session: ToolSession):
    """At once; the others go on, and so does the session."""
    other = asyncio.create_task(session.call_tool("sleep", {"seconds": 0.4}))
    call = asyncio.create_task(session.call_tool("sleep", {"seconds": 30}))
    await asyncio.sleep(0.1)
    started = monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert monotonic() - started < 5
    assert (await other).text == "slept"
    assert (await session.call_tool("echo", {"text": "on"})).text == "on"


async def test_a_session_may_be_entered_in_one_task_and_left_in_another(serving: ToolServing):
    """As a stream does, which is begun by one task and ended by another."""
    opened = servers().open(address_of(serving))
    session = await asyncio.create_task(opened.__aenter__())  # type: ignore[arg-type]
    assert (await asyncio.create_task(session.call_tool("echo", {"text": "a"}))).text == "a"
    await asyncio.create_task(opened.__aexit__(None, None, None))  # type: ignore[arg-type]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "mcp-session"]


async def test_cancelling_the_opening_leaves_nothing(serving: ToolServing):
    """No task goes on behind it."""

    async def opens() -> None:
        async with servers().open(address_of(serving)):
            await asyncio.sleep(30)

    for pause in (0, 0.005, 0.02, 0.1):
        task = asyncio.create_task(opens())
        await asyncio.sleep(pause)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("mcp-")]


async def test_leaving_ends_the_session_at_the_server():
    """By DELETE, where there are sessions."""
    async with ToolServing("sessions") as serving:
        async with servers().open(address_of(serving)) as session:
            session_id = session.session_id
        [end] = [one for one in serving.requests if one["method"] == "DELETE"]
    assert end["headers"]["mcp-session-id"] == session_id


async def test_the_trace_context_goes_along(serving: ToolServing, session: ToolSession):
    """In the message, and in the headers of its request."""
    await session.call_tool("echo", {"text": "a"}, headers={"traceparent": PARENT})
    await session.call_tool("echo", {"text": "b"})
    await session.list_tools(headers={"traceparent": PARENT})
    traced, untraced = serving.said("tools/call")
    [listed] = serving.said("tools/list")
    for message in (traced, listed):
        assert message["params"]["_meta"]["traceparent"] == PARENT
        assert message["headers"]["traceparent"] == PARENT
    assert "traceparent" not in untraced["headers"]


async def test_headers_go_with_every_request(serving: ToolServing):
    """The token too, up to the goodbye."""
    headers = {"authorization": "Bearer sesame", "x-team": "blue"}
    async with servers().open(address_of(serving, headers=headers)) as session:
        await session.call_tool("echo", {"text": "a"})
    assert serving.requests
    for request in serving.requests:
        assert request["headers"]["authorization"] == "Bearer sesame"
        assert request["headers"]["x-team"] == "blue"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_keeps_its_status(kind: str):
    """401 is told as 401; the right token is let in."""
    async with ToolServing(kind, token="sesame") as serving:
        with pytest.raises(ToolServerFailed) as raised:
            async with servers().open(address_of(serving)):
                pass
        headers = {"authorization": "Bearer sesame"}
        async with servers().open(address_of(serving, headers=headers)) as session:
            assert (await session.call_tool("echo", {"text": "a"})).text == "a"
    assert raised.value.status == 401


async def test_a_slow_tool_is_given_up(serving: ToolServing):
    """After the configured time; the session goes on."""
    async with servers(call_seconds=1.5).open(address_of(serving)) as session:
        with pytest.raises(ToolServerFailed, match=r"within 1\.5 seconds"):
            await session.call_tool("sleep", {"seconds": 30})
        assert (await session.call_tool("echo", {"text": "on"})).text == "on"


@pytest.mark.alone
async def test_a_server_that_goes_away_fails_its_calls(serving: ToolServing):
    """At once, not when the time is over."""
    async with servers(call_seconds=20).open(address_of(serving)) as session:
        call = asyncio.create_task(session.call_tool("sleep", {"seconds": 30}))
        await until(lambda: bool(serving.said("tools/call")), "the call")
        await serving.stop()
        started = monotonic()
        with pytest.raises(ToolServerFailed):
            await call
        with pytest.raises(ToolServerFailed):
            await session.call_tool("echo", {"text": "a"})
        assert monotonic() - started < 5


async def test_closing_the_way_closes_sessions(serving: ToolServing):
    """Whoever still waits for one is told."""
    way = servers()
    async with way.open(address_of(serving)) as session:
        call = asyncio.create_task(session.call_tool("sleep", {"seconds": 30}))
        await asyncio.sleep(0.1)
        await way.aclose()
        with pytest.raises(ToolServerFailed):
            await asyncio.wait_for(call, 20)


@pytest.mark.parametrize("where", ["address", "settings"])
async def test_a_private_authority_is_trusted_where_it_is_named(
    where: str, private_ca: trustme.CA, tmp_path: Path
):
    """For one server or for all; without, the certificate is refused, and the reason told."""
    certificate = private_ca.issue_cert("127.0.0.1")
    key, chain, ca = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / f"{where}.pem"
    certificate.private_key_pem.write_to_path(key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    private_ca.cert_pem.write_to_path(ca)
    more = {"ca_file": str(ca)} if where == "address" else {}
    all_of_them = {"ca_file": str(ca)} if where == "settings" else {}
    async with ToolServing(ssl_keyfile=str(key), ssl_certfile=str(chain)) as serving:
        async with servers(**all_of_them).open(address_of(serving, **more)) as session:
            assert (await session.call_tool("echo", {"text": "a"})).text == "a"
        with pytest.raises(ToolServerFailed, match=r"TLS failed: .*local issuer"):
            async with servers().open(address_of(serving)):
                pass
    assert ssl.HAS_TLSv1_3


async def test_what_is_shown_of_an_address_has_no_secret():
    """Neither its representation nor that of a session."""
    address = ToolServerAddress(
        label="demo", url="http://127.0.0.1:9/mcp?key=sesame", headers={"authorization": "sesame"}
    )
    assert "sesame" not in repr(address)
