"""LlamaStack's tool runtime: every tool of every group, listed and run by its name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Any, Literal

from gateway.errors import GatewayError, NotFound
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import ServedTool, ToolServerAddress, ToolServerFailed
from gateway.tools.credentials import Credentials
from gateway.tools.groups import MCP_PROVIDER, Group, ToolGroupService, shown_url
from gateway.tools.schemas import Invocation, TextItem, ToolDef, ToolParameter
from gateway.tools.service import ToolService, error_of

__all__ = ["ToolRuntime", "tool_def"]

logger = logging.getLogger(__name__)

SERVERS_AT_ONCE = 8
MOST_REMEMBERED = 4096
REMEMBERED_SECONDS = 600.0


class ToolRuntime:
    """Which group a tool belongs to is remembered for a while, so that running it asks one server
    instead of all.
    """

    def __init__(self, groups: ToolGroupService, tools: ToolService) -> None:
        self._groups = groups
        self._tools = tools
        self._hints: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    async def list_tools(
        self,
        principal: Principal,
        activity: Activity,
        credentials: Credentials,
        *,
        group_id: str | None = None,
        endpoint: str | None = None,
    ) -> list[ToolDef]:
        """Of one group, of a server named by URL, or of all groups.

        A named one that fails is the answer's error; among all, it is left out.
        """
        if endpoint is not None:
            group = Group(id=group_id or endpoint, url=endpoint)
            tools = await self._of_group(activity, credentials, group)
            return [tool_def(tool, group) for tool in tools]
        if group_id is not None:
            group = await self._groups.find(principal, _group_part(group_id))
            return await self._of_known(principal, activity, credentials, group)
        places = asyncio.Semaphore(SERVERS_AT_ONCE)

        async def of(group: Group) -> list[ToolDef]:
            async with places:
                try:
                    return await self._of_known(principal, activity, credentials, group)
                except GatewayError as error:
                    logger.warning("The tools of %s are left out: %s", group.id, error.message)
                    return []

        groups = await self._groups.all(principal)
        found = await asyncio.gather(*(of(group) for group in groups))
        return [tool for tools in found for tool in tools]

    async def get_tool(
        self, principal: Principal, activity: Activity, credentials: Credentials, name: str
    ) -> ToolDef:
        """Raises ``NotFound``."""
        for tool in await self.list_tools(principal, activity, credentials):
            if tool.name == name:
                return tool
        raise NotFound(f"Tool '{name[:100]}' not found.", param="tool_name")

    async def invoke(
        self,
        principal: Principal,
        activity: Activity,
        credentials: Credentials,
        name: str,
        kwargs: dict[str, Any],
    ) -> Invocation:
        """What the tool comes to; its own failure, and its server's, are in the result."""
        hint = self._hints.get((principal.project, name))
        group_id = hint[0] if hint is not None and hint[1] > time.monotonic() else None
        if group_id is None:
            tool = await self.get_tool(principal, activity, credentials, name)
            group_id = tool.toolgroup_id or ""
        try:
            group = await self._groups.find(principal, group_id)
        except GatewayError:  # unregistered since
            self._hints.pop((principal.project, name), None)
            raise NotFound(f"Tool '{name[:100]}' not found.", param="tool_name") from None
        if group.builtin is not None:
            return await group.builtin.invoke(principal, activity, name, kwargs)
        address = self._address(group, credentials)
        try:
            async with self._tools.open(address) as session:
                output = await self._tools.call_tool(activity, session, name, kwargs)
        except ToolServerFailed as failed:
            self._hints.pop((principal.project, name), None)
            if failed.status == 401:
                raise error_of(failed) from None  # so that the client sends its credentials
            return Invocation(error_code=1, error_message=failed.message)
        return Invocation(
            content=[TextItem(text=output.text)],
            error_code=int(output.is_error),
            error_message=output.text[:2000] if output.is_error else None,
        )

    async def _of_known(
        self, principal: Principal, activity: Activity, credentials: Credentials, group: Group
    ) -> list[ToolDef]:
        tools = await self._of_group(activity, credentials, group)
        self._remember(principal, group, tools)
        return [tool_def(tool, group) for tool in tools]

    async def _of_group(
        self, activity: Activity, credentials: Credentials, group: Group
    ) -> list[ServedTool]:
        if group.builtin is not None:
            return group.builtin.tools
        address = self._address(group, credentials)
        try:
            async with self._tools.open(address) as session:
                return await self._tools.list_tools(activity, session)
        except ToolServerFailed as failed:
            raise error_of(failed) from None

    def _address(self, group: Group, credentials: Credentials) -> ToolServerAddress:
        if group.connector is not None:
            return self._tools.connectors.address(
                group.connector.id,
                group.id,
                authorization=credentials.authorization,
                headers=credentials.for_url(group.connector.url),
                param="mcp_headers",
            )
        assert group.url is not None  # neither the gateway's nor a connector
        return self._tools.address(
            server_label=group.id,
            server_url=group.url,
            headers=credentials.for_url(group.url),
            authorization=credentials.authorization,
            param="mcp_endpoint",
        )

    def _remember(self, principal: Principal, group: Group, tools: list[ServedTool]) -> None:
        until = time.monotonic() + REMEMBERED_SECONDS
        for tool in tools:
            key = (principal.project, tool.name)
            known = self._hints.get(key)
            if known is None or known[1] < time.monotonic():
                self._hints[key] = (group.id, until)
        while len(self._hints) > MOST_REMEMBERED:
            self._hints.popitem(last=False)


def tool_def(tool: ServedTool, group: Group) -> ToolDef:
    """A tool as LlamaStack's clients know it."""
    url = group.url if group.connector is None else shown_url(group.connector.url)
    host: Literal["distribution", "model_context_protocol"] = (
        "model_context_protocol" if group.provider_id == MCP_PROVIDER else "distribution"
    )
    return ToolDef(
        name=tool.name,
        toolgroup_id=group.id,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        metadata={"endpoint": url} if url is not None else None,
        identifier=tool.name,
        provider_id=group.provider_id,
        provider_resource_id=tool.name,
        tool_host=host,
        parameters=_parameters(tool.input_schema),
    )


def _parameters(schema: dict[str, Any]) -> list[ToolParameter]:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return []
    needed = required if isinstance(required, list) else []
    return [
        ToolParameter(
            name=name,
            parameter_type=str(one.get("type", "object")) if isinstance(one, dict) else "object",
            description=str(one.get("description") or "") if isinstance(one, dict) else "",
            required=name in needed,
            default=one.get("default") if isinstance(one, dict) else None,
        )
        for name, one in properties.items()
    ]


def _group_part(group_id: str) -> str:
    """``builtin::rag/knowledge_search`` is how agents name one tool of a group."""
    return group_id.partition("/")[0]
