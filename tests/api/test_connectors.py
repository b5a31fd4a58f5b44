"""Connectors: tool servers that the configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.errors import InvalidRequest
from gateway.observability.activity import Activity
from tests.support.expect import refused
from tests.support.gateway import GatewayProcess
from tests.support.inprocess import InProcessGateway
from tests.support.tool_servers import ToolServing
from tests.support.upstream import FakeVllm

pytestmark = pytest.mark.anyio

TOKEN = "sesame-4711"
PREFIXES = ("/v1alpha/admin", "/v1alpha", "/v1beta")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
async def serving() -> AsyncIterator[ToolServing]:
    async with ToolServing("today", token=TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
async def running(
    serving: ToolServing, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcessGateway]:
    token = tmp_path_factory.mktemp("secrets") / "token"
    token.write_text(f"{TOKEN}\n")
    connectors = [
        {
            "id": "tickets",
            "url": f"{serving.url}?key=hidden",
            "name": "Tickets",
            "description": "All tickets.",
            "headers": {"X-Team": "blue"},
            "authorization_file": str(token),
        },
        {"id": "closed", "url": serving.url},
        {"id": "down", "url": "http://127.0.0.1:9/mcp"},
    ]
    async with InProcessGateway(tools={"connectors": connectors}) as started:
        yield started


@pytest.fixture
async def client(running: InProcessGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with running.client() as opened:
        yield opened


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_they_are_listed(prefix: str, client: httpx.AsyncClient, serving: ToolServing):
    """As configured, without what may be a secret; no server is asked."""
    asked = len(serving.requests)
    listed = (await client.get(f"{prefix}/connectors")).json()["data"]
    assert listed[0] == {
        "connector_type": "mcp",
        "connector_id": "tickets",
        "url": serving.url,
        "server_label": "tickets",
        "server_name": "Tickets",
        "server_description": "All tickets.",
        "server_version": None,
    }
    assert [one["connector_id"] for one in listed] == ["tickets", "closed", "down"]
    assert len(serving.requests) == asked


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_one_is_shown_with_what_its_server_says(prefix: str, client: httpx.AsyncClient):
    """Its name and version."""
    one = (await client.get(f"{prefix}/connectors/tickets")).json()
    assert (one["server_name"], one["server_version"]) == ("demo", "1.2")
    tools = (await client.get(f"{prefix}/connectors/tickets/tools")).json()["data"]
    assert "echo" in [tool["name"] for tool in tools]
    tool = (await client.get(f"{prefix}/connectors/tickets/tools/echo")).json()
    assert (tool["name"], tool["toolgroup_id"]) == ("echo", "mcp::tickets")


async def test_what_is_not_there(client: httpx.AsyncClient):
    """404 for a connector and for a tool."""
    for path in ("nope", "nope/tools", "nope/tools/echo", "tickets/tools/nope"):
        refused(await client.get(f"/v1alpha/admin/connectors/{path}"), 404)


async def test_a_callers_own_token_counts(client: httpx.AsyncClient):
    """Where the configuration has none, and in its place where it has one."""
    path = "/v1alpha/admin/connectors/closed/tools"
    assert refused(await client.get(path), 401)["code"] == "tool_server_refused"
    assert (await client.get(path, params={"authorization": TOKEN})).status_code == 200
    other = await client.get("/v1alpha/admin/connectors/tickets", params={"authorization": "wrong"})
    refused(other, 401)


async def test_one_whose_server_is_down(client: httpx.AsyncClient):
    """502, in words."""
    error = refused(await client.get("/v1alpha/admin/connectors/down"), 502)
    assert error["code"] == "tool_server_failed"
    assert error["message"] == "The tool server 'down' failed: no connection came about."


async def test_configured_headers_go_to_its_server(client: httpx.AsyncClient, serving: ToolServing):
    """And the token of its file."""
    serving.requests.clear()
    await client.get("/v1alpha/admin/connectors/tickets/tools")
    for request in serving.requests:
        assert request["headers"]["x-team"] == "blue"
        assert request["headers"]["authorization"] == f"Bearer {TOKEN}"


# -- as the tools of a request use them ----------------------------------------------------------


async def test_a_definition_becomes_an_address(running: InProcessGateway):
    """By its connector; the caller's headers add to those of the configuration, which win."""
    tools = running.application.agentic.tools
    address = tools.address(
        server_label="t",
        connector_id="tickets",
        headers={"x-team": "red", "x-more": "1"},
        authorization="own",
        param="tools[0]",
    )
    assert address.trusted
    assert dict(address.headers) == {
        "x-team": "blue", "x-more": "1", "authorization": "Bearer own",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("definition", "param"),
    [
        ({}, "server_url"),
        ({"server_url": "https://a.example/", "connector_id": "tickets"}, "server_url"),
        ({"server_url": "https://a.example/"}, "server_url"),
        ({"connector_id": "nope"}, "connector_id"),
        ({"connector_id": "closed", "headers": {"host": "a"}}, "headers"),
        ({"connector_id": "closed", "headers": {"a b": "a"}}, "headers"),
        ({"connector_id": "closed", "headers": {"a": "x\r\ny: z"}}, "headers"),
        ({"connector_id": "closed", "headers": {"mcp-session-id": "a"}}, "headers"),
        ({"connector_id": "closed", "authorization": "a\nb"}, "authorization"),
        (
            {"connector_id": "closed", "authorization": "a", "headers": {"Authorization": "b"}},
            "authorization",
        ),
    ],
)
async def test_a_definition_that_can_not_be(
    definition: dict[str, object], param: str, running: InProcessGateway
):
    """The field at fault is named."""
    with pytest.raises(InvalidRequest) as raised:
        running.application.agentic.tools.address(
            server_label="t",
            param="tools[3]",
            **definition,  # type: ignore[arg-type]
        )
    assert raised.value.param == f"tools[3].{param}"


async def test_every_question_is_a_span(running: InProcessGateway, serving: ToolServing):
    """A CLIENT span whose context the server gets, with the conventions' attributes."""
    tools = running.application.agentic.tools
    address = tools.address(server_label="t", connector_id="tickets")
    serving.requests.clear()
    with Activity.of_job(running.application.telemetry, "test") as activity:
        async with tools.open(address) as session:
            await tools.list_tools(activity, session)
            await tools.call_tool(activity, session, "echo", {"text": "a"})
            failed = await tools.call_tool(activity, session, "fail", {"text": "no"})
    assert failed.is_error
    listed = await running.span("tools/list")
    called = await running.span("tools/call echo")
    no = await running.span("tools/call fail")
    assert called.attributes == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2026-07-28",
        "network.transport": "tcp",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "echo",
        "server.address": "127.0.0.1",
        "server.port": serving.port,
    }
    assert called.kind.name == "CLIENT"
    assert no.attributes is not None
    assert no.attributes["error.type"] == "tool_error"
    assert no.status.status_code.name == "ERROR"
    root = await running.span("test")
    for span, method in ((listed, "tools/list"), (called, "tools/call")):
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        parent = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
        message = serving.said(method)[0]
        assert message["headers"]["traceparent"] == parent
        assert message["params"]["_meta"]["traceparent"] == parent
    count = "mcp_client_operation_duration_seconds_count"
    assert running.metric(count, mcp_method_name="tools/call", error_type="tool_error") >= 1
    assert running.metric(count, mcp_method_name="tools/call", error_type="") >= 1


async def test_secrets_stay_inside(
    running: InProcessGateway,
    client: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
):
    """A token is in no answer, span, metric or log line of the gateway."""
    seen = []
    for path in ("", "/tickets", "/tickets/tools", "/closed/tools", "/down"):
        answer = await client.get(
            f"/v1alpha/admin/connectors{path}", headers={"traceparent": PARENT}
        )
        seen.append(answer.text + str(answer.headers))
    wrong = await client.get(
        "/v1alpha/admin/connectors/closed/tools", params={"authorization": "wrong-4712"}
    )
    seen += [wrong.text, (await client.get("/metrics")).text]
    seen += [span.to_json() for span in running.spans()]
    seen += [record.getMessage() for record in caplog.records if record.name.startswith("gateway")]
    everything = "".join(seen)
    assert "tickets" in everything
    for secret in (TOKEN, "hidden", "wrong-4712"):
        assert secret not in everything


async def test_secrets_are_in_no_log_line(serving: ToolServing, upstream: FakeVllm):
    """Of a real process that logs all it can, the libraries that speak HTTP included."""
    connectors = [{"id": "tickets", "url": serving.url, "authorization": "${TOKEN}"}]
    config = {
        "discover": [upstream.url],
        "tools": {"connectors": connectors},
        "telemetry": {"log_level": "debug", "access_log": True},
    }
    async with GatewayProcess(config, env={"TOKEN": TOKEN}) as process:
        async with httpx.AsyncClient(base_url=process.root_url, timeout=30) as client:
            body = {"tool_name": "echo", "kwargs": {"text": "private-words"}}
            answer = await client.post("/v1/tool-runtime/invoke", json=body)
            wrong = {"authorization": "wrong-4712"}
            refusal = await client.get("/v1alpha/admin/connectors/tickets", params=wrong)
        process.terminate()
        log = process.log()
    assert (answer.json()["error_code"], refusal.status_code) == (0, 401)
    assert "/v1/tool-runtime/invoke" in log
    for secret in (TOKEN, "private-words", "wrong-4712"):
        assert secret not in log
