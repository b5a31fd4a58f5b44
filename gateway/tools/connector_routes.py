"""Connectors, at the places where OGX and LlamaStack have had them."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.http.disconnect import Departure
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.tools.connector_service import ConnectorService
from gateway.tools.schemas import Connector, Listing, ToolDef

__all__ = ["connector_routes"]

PREFIXES = ("/v1alpha/admin", "/v1alpha", "/v1beta")
"""OGX 1.x, LlamaStack 0.4 to 0.6, and 0.7 to 0.8."""

ConnectorId = Annotated[str, PathParameter(description="Id of the connector.")]
Token = Annotated[str | None, QueryParameter(description="A token for the server.")]
Asked = Request[Any, Any, Any]


def connector_routes(service: ConnectorService) -> list[HTTPRouteHandler]:
    @get(
        [f"{prefix}/connectors" for prefix in PREFIXES],
        name="listConnectors",
        summary="List connectors",
        tags=["Connectors"],
    )
    async def list_connectors(principal: NamedDependency[Principal]) -> Listing[Connector]:
        return Listing(await service.listed(principal))

    @get(
        [f"{prefix}/connectors/{{connector_id:str}}" for prefix in PREFIXES],
        name="getConnector",
        summary="Get a connector",
        tags=["Connectors"],
    )
    async def get_connector(
        request: Asked,
        principal: NamedDependency[Principal],
        connector_id: ConnectorId,
        authorization: Token = None,
    ) -> Connector:
        with Departure(request.receive):  # type: ignore[arg-type]  # Litestar names each message
            return await service.get(principal, connector_id, authorization or None)

    @get(
        [f"{prefix}/connectors/{{connector_id:str}}/tools" for prefix in PREFIXES],
        name="listConnectorTools",
        summary="List a connector's tools",
        tags=["Connectors"],
    )
    async def list_tools(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        connector_id: ConnectorId,
        authorization: Token = None,
    ) -> Listing[ToolDef]:
        with Departure(request.receive):  # type: ignore[arg-type]
            return Listing(
                await service.tools(principal, activity, connector_id, authorization or None)
            )

    @get(
        [
            f"{prefix}/connectors/{{connector_id:str}}/tools/{{tool_name:str}}"
            for prefix in PREFIXES
        ],
        name="getConnectorTool",
        summary="Get a connector's tool",
        tags=["Connectors"],
    )
    async def get_tool(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        connector_id: ConnectorId,
        tool_name: Annotated[str, PathParameter(description="The tool's name.")],
        authorization: Token = None,
    ) -> ToolDef:
        with Departure(request.receive):  # type: ignore[arg-type]
            return await service.tool(
                principal, activity, connector_id, tool_name, authorization or None
            )

    return [list_connectors, get_connector, list_tools, get_tool]
