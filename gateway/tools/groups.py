"""Groups of tools: the gateway's own, the connectors of the configuration, and registered ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from sqlalchemy.exc import IntegrityError

from gateway.database.engine import Database
from gateway.database.identifiers import sequence
from gateway.database.tables import ToolGroupRow
from gateway.errors import GatewayError, InvalidRequest
from gateway.identity.principal import Principal
from gateway.profile import Profile
from gateway.settings import ConnectorSettings
from gateway.tools.builtin import BuiltinTools
from gateway.tools.connectors import ConnectorRegistry
from gateway.tools.repository import ToolGroupRepository
from gateway.tools.schemas import Endpoint, RegisterToolGroup, ToolGroup
from gateway.urls import UrlPolicy

__all__ = ["Group", "ToolGroupService", "shown_url"]

MCP_PROVIDER = "model-context-protocol"
MOST_GROUPS = 200
"""Of one project."""
MAX_ARGS_BYTES = 16_384
_SECRETS = ("authorization", "headers", "api_key", "apikey", "token", "password", "secret")


class Group(Struct, frozen=True, kw_only=True):
    """Where a group's tools come from: from the gateway, a connector or a URL."""

    id: str
    builtin: BuiltinTools | None = None
    connector: ConnectorSettings | None = None
    url: str | None = None
    provider_id: str = MCP_PROVIDER
    args: dict[str, Any] | None = None

    def shown(self) -> ToolGroup:
        url = self.url if self.connector is None else shown_url(self.connector.url)
        return ToolGroup(
            identifier=self.id,
            provider_id=self.provider_id,
            provider_resource_id=self.id,
            mcp_endpoint=Endpoint(uri=url) if url is not None else None,
            args=self.args,
        )


class ToolGroupService:
    def __init__(
        self,
        database: Database,
        connectors: ConnectorRegistry,
        builtin: Sequence[BuiltinTools],
        policy: UrlPolicy,
        profile: Profile,
    ) -> None:
        self._database = database
        self._policy = policy
        self._profile = profile
        fixed = [Group(id=one.group, builtin=one, provider_id=one.provider_id) for one in builtin]
        fixed += [Group(id=f"mcp::{one.id}", connector=one) for one in connectors.all()]
        self._fixed = {group.id: group for group in fixed}

    async def listed(self, principal: Principal) -> list[ToolGroup]:
        return [group.shown() for group in await self.all(principal)]

    async def get(self, principal: Principal, group_id: str) -> ToolGroup:
        """Raises the profile's error for one that isn't there, like the others."""
        return (await self.find(principal, group_id)).shown()

    async def register(self, principal: Principal, new: RegisterToolGroup) -> None:
        """One that is there already is replaced; the gateway's own stay as they are."""
        if (fixed := self._fixed.get(new.toolgroup_id)) is not None:
            if new.mcp_endpoint is not None and new.mcp_endpoint.uri != fixed.url:
                raise InvalidRequest(
                    f"The tool group '{fixed.id}' is the gateway's own and can't be replaced.",
                    param="toolgroup_id",
                    code="invalid_value",
                )
            return
        row = self._row(principal, new)
        try:
            await self._put(row)
        except IntegrityError:  # another request registered it at the same moment
            await self._put(self._row(principal, new))

    async def unregister(self, principal: Principal, group_id: str) -> None:
        if group_id in self._fixed:
            raise InvalidRequest(
                f"The tool group '{group_id}' is the gateway's own and can't be removed.",
                param="toolgroup_id",
                code="invalid_value",
            )
        removed = False
        if "\x00" not in group_id:
            async with self._database.begin() as session:
                removed = await ToolGroupRepository(session).remove(principal.project, group_id)
        if not removed:
            raise self._unknown(group_id)

    async def all(self, principal: Principal) -> list[Group]:
        async with self._database.read() as session:
            rows = await ToolGroupRepository(session).all(principal.project)
        return [*self._fixed.values(), *(_group_of(row) for row in rows)]

    async def find(self, principal: Principal, group_id: str) -> Group:
        if (fixed := self._fixed.get(group_id)) is not None:
            return fixed
        row: ToolGroupRow | None = None
        if "\x00" not in group_id:  # which PostgreSQL can't even look for
            async with self._database.read() as session:
                row = await ToolGroupRepository(session).find(principal.project, group_id)
        if row is None:
            raise self._unknown(group_id)
        return _group_of(row)

    async def _put(self, row: ToolGroupRow) -> None:
        async with self._database.begin() as session:
            groups = ToolGroupRepository(session)
            if await groups.count(row.project) >= MOST_GROUPS:
                raise InvalidRequest(
                    f"There are {MOST_GROUPS} tool groups already.", param="toolgroup_id"
                )
            await groups.put(row)

    def _row(self, principal: Principal, new: RegisterToolGroup) -> ToolGroupRow:
        if new.mcp_endpoint is None:
            known = ", ".join(f"'{one}'" for one in self._fixed) or "none"
            raise InvalidRequest(
                "Missing required parameter: 'mcp_endpoint'. The tool groups that need none are: "
                f"{known}.",
                param="mcp_endpoint",
                code="missing_required_parameter",
            )
        url = new.mcp_endpoint.uri
        self._policy.check(url, "mcp_endpoint.uri")
        if urlsplit(url).query:
            raise InvalidRequest(
                "Invalid 'mcp_endpoint.uri': a query may hold credentials, which are not kept. "
                "Send them with each request, in 'X-LlamaStack-Provider-Data'.",
                param="mcp_endpoint.uri",
                code="invalid_url",
            )
        return ToolGroupRow(
            project=principal.project,
            id=new.toolgroup_id,
            sequence=sequence(),
            provider_id=new.provider_id,
            url=url,
            args=_checked_args(new.args or {}),
        )

    def _unknown(self, group_id: str) -> GatewayError:
        return self._profile.unknown_tool_group(
            f"Tool Group '{group_id[:100]}' not found. "
            "Use 'client.toolgroups.list()' to list available Tool Groups.",
            param="toolgroup_id",
        )


def shown_url(url: str) -> str:
    """Without what may be a credential."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def _checked_args(args: dict[str, Any]) -> dict[str, Any]:
    if any(one in name.lower() for name in args for one in _SECRETS):
        raise InvalidRequest(
            "Invalid 'args': credentials are not kept. Send them with each request, in "
            "'X-LlamaStack-Provider-Data'.",
            param="args",
            code="invalid_value",
        )
    encoded = msgspec.json.encode(args)
    if len(encoded) > MAX_ARGS_BYTES or b"\\u0000" in encoded:
        raise InvalidRequest(
            f"Invalid 'args': larger than {MAX_ARGS_BYTES} bytes, or with a null character.",
            param="args",
            code="invalid_value",
        )
    return args


def _group_of(row: ToolGroupRow) -> Group:
    return Group(id=row.id, url=row.url, provider_id=row.provider_id, args=row.args or None)
