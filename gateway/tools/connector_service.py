"""Connectors as a caller sees them: what the configuration says, and what the server says."""

from __future__ import annotations

from gateway.errors import NotFound
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import ToolServerFailed
from gateway.settings import ConnectorSettings
from gateway.tools.groups import Group, shown_url
from gateway.tools.runtime import tool_def
from gateway.tools.schemas import Connector, ToolDef
from gateway.tools.service import ToolService, error_of

__all__ = ["ConnectorService"]


class ConnectorService:
    """They are the same for every project. ``authorization`` is the caller's own token."""

    def __init__(self, tools: ToolService) -> None:
        self._connectors = tools.connectors
        self._tools = tools

    async def listed(self, _: Principal) -> list[Connector]:
        """As the configuration has them; no server is asked."""
        return [_shown(one) for one in self._connectors.all()]

    async def get(self, _: Principal, connector_id: str, authorization: str | None) -> Connector:
        """With what the server says of itself. Raises ``NotFound``, and where the server fails."""
        connector = self._find(connector_id)
        address = self._connectors.address(
            connector.id, connector.id, authorization=authorization, param="connector"
        )
        try:
            async with self._tools.open(address) as session:
                return _shown(connector, session.server_name, session.server_version)
        except ToolServerFailed as failed:
            raise error_of(failed) from None

    async def tools(
        self, _: Principal, activity: Activity, connector_id: str, authorization: str | None
    ) -> list[ToolDef]:
        connector = self._find(connector_id)
        address = self._connectors.address(
            connector.id, connector.id, authorization=authorization, param="connector"
        )
        group = Group(id=f"mcp::{connector.id}", connector=connector)
        try:
            async with self._tools.open(address) as session:
                tools = await self._tools.list_tools(activity, session)
        except ToolServerFailed as failed:
            raise error_of(failed) from None
        return [tool_def(tool, group) for tool in tools]

    async def tool(
        self,
        principal: Principal,
        activity: Activity,
        connector_id: str,
        name: str,
        authorization: str | None,
    ) -> ToolDef:
        for tool in await self.tools(principal, activity, connector_id, authorization):
            if tool.name == name:
                return tool
        raise NotFound(
            f"Tool '{name[:100]}' not found in connector '{connector_id}'.", param="tool_name"
        )

    def _find(self, connector_id: str) -> ConnectorSettings:
        found = self._connectors.find(connector_id)
        if found is None:
            raise NotFound(f"Connector '{connector_id[:100]}' not found.", param="connector_id")
        return found


def _shown(
    connector: ConnectorSettings, name: str | None = None, version: str | None = None
) -> Connector:
    return Connector(
        connector_id=connector.id,
        url=shown_url(connector.url),
        server_label=connector.id,
        server_name=name or connector.name,
        server_description=connector.description,
        server_version=version,
    )
