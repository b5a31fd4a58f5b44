"""Tool servers as the gateway's slices use them: found, opened and asked, in spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import msgspec
from opentelemetry.trace import SpanKind

from gateway.errors import (
    AuthenticationFailed,
    GatewayError,
    InvalidRequest,
    PermissionDenied,
    UpstreamError,
)
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.observability.metrics import Metrics
from gateway.ports import (
    ServedTool,
    ToolOutput,
    ToolServer,
    ToolServerAddress,
    ToolServerFailed,
    ToolSession,
)
from gateway.tools.connectors import ConnectorRegistry
from gateway.tools.credentials import check_headers
from gateway.urls import UrlPolicy

__all__ = ["ToolService", "error_of"]

MAX_CONTENT_CHARACTERS = 64 * 1024


class _ToolSaidNo(Exception):
    """Makes a span of a call failed; its result is one all the same."""

    error_type = "tool_error"

    def __init__(self, output: ToolOutput) -> None:
        super().__init__()
        self.output = output


class ToolService:
    """What the tools of a request need: an address for each definition, a session with it, and
    questions to that session.
    """

    def __init__(
        self,
        servers: ToolServer,
        connectors: ConnectorRegistry,
        policy: UrlPolicy,
        metrics: Metrics,
    ) -> None:
        self._servers = servers
        self.connectors = connectors
        self._policy = policy
        self._metrics = metrics

    def address(
        self,
        *,
        server_label: str,
        server_url: str | None = None,
        connector_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        param: str = "tools",
    ) -> ToolServerAddress:
        """The server of an MCP tool's definition. ``param`` is where that stands: ``tools[0]``.

        Raises ``InvalidRequest`` that names the field at fault.
        """
        if (server_url is None) == (connector_id is None):
            what = "either" if server_url is not None else "one of"
            raise InvalidRequest(
                f"Give {what} '{param}.server_url' {'or' if server_url else 'and'} "
                f"'{param}.connector_id'{', not both' if server_url else ''}.",
                param=f"{param}.server_url",
                code="mutually_exclusive_parameters"
                if server_url is not None
                else "missing_required_parameter",
            )
        if connector_id is not None:
            return self.connectors.address(
                connector_id,
                server_label,
                authorization=authorization,
                headers=headers,
                param=param,
            )
        assert server_url is not None  # one of the two is there
        self._policy.check(server_url, f"{param}.server_url")
        return ToolServerAddress(
            label=server_label,
            url=server_url,
            headers=check_headers(headers or {}, authorization, param),
        )

    def open(self, address: ToolServerAddress) -> AbstractAsyncContextManager[ToolSession]:
        """A session; entering raises ``ToolServerFailed``. See the port."""
        return self._servers.open(address)

    async def list_tools(self, activity: Activity, session: ToolSession) -> list[ServedTool]:
        """Raises ``ToolServerFailed``."""
        with self._asking(activity, session, "tools/list") as step:
            return await session.list_tools(headers=step.trace_headers())

    async def call_tool(
        self, activity: Activity, session: ToolSession, name: str, arguments: Mapping[str, Any]
    ) -> ToolOutput:
        """Raises ``ToolServerFailed``; a tool that fails by itself is an output that says so."""
        try:
            with self._asking(activity, session, "tools/call", name) as step:
                _keep(step, semconv.TOOL_ARGUMENTS, lambda: msgspec.json.encode(arguments).decode())
                output = await session.call_tool(name, arguments, headers=step.trace_headers())
                _keep(step, semconv.TOOL_RESULT, lambda: output.text)
                if output.is_error:
                    raise _ToolSaidNo(output)  # noqa: TRY301  (so that the span fails)
                return output
        except _ToolSaidNo as no:
            return no.output

    @contextmanager
    def _asking(
        self, activity: Activity, session: ToolSession, method: str, tool: str | None = None
    ) -> Iterator[Activity]:
        """A CLIENT span and a measurement of one request to a server."""
        attributes = {
            semconv.MCP_METHOD: method,
            semconv.NETWORK_TRANSPORT: "tcp",
            semconv.SERVER_ADDRESS: session.server_address,
            semconv.SERVER_PORT: session.server_port,
            semconv.MCP_SESSION_ID: session.session_id,
            semconv.MCP_PROTOCOL_VERSION: session.protocol_version,
        }
        if tool is not None:
            attributes |= {semconv.OPERATION: "execute_tool", semconv.TOOL_NAME: tool}
        known = {name: value for name, value in attributes.items() if value is not None}
        started = time.perf_counter()
        error_type: str | None = None
        try:
            name = method if tool is None else f"{method} {tool}"
            with activity.step(name, kind=SpanKind.CLIENT, attributes=known) as step:
                try:
                    yield step
                except ToolServerFailed as failed:
                    if failed.code is not None:
                        step.attributes[semconv.RPC_STATUS] = str(failed.code)
                    raise
        except BaseException as raised:
            error_type = getattr(raised, "error_type", type(raised).__name__)
            raise
        finally:
            seconds = time.perf_counter() - started
            self._metrics.tool_server_answered(method, error_type, seconds)


def error_of(failed: ToolServerFailed) -> GatewayError:
    """A tool server's failure as the answer to a request that asked for nothing else."""
    if failed.status == 401:
        return AuthenticationFailed(failed.message, code="tool_server_refused")
    if failed.status == 403:
        return PermissionDenied(failed.message, code="tool_server_refused")
    return UpstreamError(failed.message, code="tool_server_failed")


def _keep(step: Activity, name: str, text: Callable[[], str]) -> None:
    if step.keeps_content:
        step.attributes[name] = text()[:MAX_CONTENT_CHARACTERS]
