"""LlamaStack's tool groups, tools and tool runtime."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from gateway.errors import InvalidRequest
from gateway.http.disconnect import Departure
from gateway.http.requests import TAKES, read_body
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.tools.credentials import credentials_of
from gateway.tools.groups import ToolGroupService
from gateway.tools.rag import RagTools
from gateway.tools.runtime import ToolRuntime
from gateway.tools.schemas import (
    Endpoint,
    Invocation,
    InvokeTool,
    Listing,
    RagInsert,
    RagQuery,
    RagResult,
    RegisterToolGroup,
    ToolDef,
    ToolGroup,
)

__all__ = ["rag_routes", "tool_group_routes", "tool_routes"]

GroupId = Annotated[str, PathParameter(description="Id of the tool group.")]
Only = Annotated[str | None, QueryParameter(description="Only of this tool group.")]
Asked = Request[Any, Any, Any]


def tool_group_routes(groups: ToolGroupService) -> list[HTTPRouteHandler]:
    @get("/v1/toolgroups", name="listToolGroups", summary="List tool groups", tags=["Tools"])
    async def list_groups(principal: NamedDependency[Principal]) -> Listing[ToolGroup]:
        return Listing(await groups.listed(principal))

    @post(
        "/v1/toolgroups",
        status_code=200,
        name="registerToolGroup",
        summary="Register a tool group",
        tags=["Tools"],
        opt={TAKES: RegisterToolGroup},
    )
    async def register(request: Asked, principal: NamedDependency[Principal]) -> Response[bytes]:
        await groups.register(principal, await read_body(request, RegisterToolGroup))
        return _nothing()

    @get(
        "/v1/toolgroups/{toolgroup_id:str}",
        name="getToolGroup",
        summary="Get a tool group",
        tags=["Tools"],
    )
    async def get_group(principal: NamedDependency[Principal], toolgroup_id: GroupId) -> ToolGroup:
        return await groups.get(principal, toolgroup_id)

    @delete(
        "/v1/toolgroups/{toolgroup_id:str}",
        status_code=200,
        name="unregisterToolGroup",
        summary="Unregister a tool group",
        tags=["Tools"],
    )
    async def unregister(
        principal: NamedDependency[Principal], toolgroup_id: GroupId
    ) -> Response[bytes]:
        await groups.unregister(principal, toolgroup_id)
        return _nothing()

    return [list_groups, register, get_group, unregister]


def tool_routes(runtime: ToolRuntime) -> list[HTTPRouteHandler]:
    @get(["/v1/tools", "/v1/admin/tools"], name="listTools", summary="List tools", tags=["Tools"])
    async def list_tools(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        toolgroup_id: Only = None,
    ) -> Listing[ToolDef]:
        given = credentials_of(request)
        with Departure(request.receive):  # type: ignore[arg-type]  # Litestar names each message
            return Listing(
                await runtime.list_tools(principal, activity, given, group_id=toolgroup_id)
            )

    @get("/v1/tools/{tool_name:str}", name="getTool", summary="Get a tool", tags=["Tools"])
    async def get_tool(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        tool_name: Annotated[str, PathParameter(description="The tool's name.")],
    ) -> ToolDef:
        given = credentials_of(request)
        with Departure(request.receive):  # type: ignore[arg-type]
            return await runtime.get_tool(principal, activity, given, tool_name)

    @get(
        "/v1/tool-runtime/list-tools",
        name="listRuntimeTools",
        summary="List the tools of a group or of a server",
        tags=["Tools"],
    )
    async def list_runtime_tools(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
        tool_group_id: Only = None,
        mcp_endpoint: Annotated[
            str | None, QueryParameter(description="The server's URL, or JSON with its `uri`.")
        ] = None,
        authorization: Annotated[
            str | None, QueryParameter(description="A token for the server.")
        ] = None,
    ) -> Listing[ToolDef]:
        given = credentials_of(request, authorization or None)
        endpoint = _endpoint(mcp_endpoint, request.query_params.get("mcp_endpoint[uri]"))
        with Departure(request.receive):  # type: ignore[arg-type]
            return Listing(
                await runtime.list_tools(
                    principal, activity, given, group_id=tool_group_id, endpoint=endpoint
                )
            )

    @post(
        "/v1/tool-runtime/invoke",
        status_code=200,
        name="invokeTool",
        summary="Run a tool",
        tags=["Tools"],
        opt={TAKES: InvokeTool},
    )
    async def invoke(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Invocation:
        asked = await read_body(request, InvokeTool)
        given = credentials_of(request, asked.authorization)
        with Departure(request.receive):  # type: ignore[arg-type]
            return await runtime.invoke(principal, activity, given, asked.tool_name, asked.kwargs)

    return [list_tools, get_tool, list_runtime_tools, invoke]


def rag_routes(rag: RagTools, max_body_bytes: int) -> list[HTTPRouteHandler]:
    @post(
        "/v1/tool-runtime/rag-tool/query",
        status_code=200,
        name="queryRag",
        summary="Search vector stores for a model",
        tags=["Tools"],
        opt={TAKES: RagQuery},
    )
    async def query(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> RagResult:
        asked = await read_body(request, RagQuery)
        with Departure(request.receive):  # type: ignore[arg-type]
            return await rag.query(principal, activity, asked)

    @post(
        "/v1/tool-runtime/rag-tool/insert",
        status_code=200,
        name="insertRag",
        summary="Insert documents into a vector store",
        tags=["Tools"],
        opt={TAKES: RagInsert},
    )
    async def insert(
        request: Asked,
        principal: NamedDependency[Principal],
        activity: NamedDependency[Activity],
    ) -> Response[bytes]:
        wanted = await read_body(request, RagInsert, max_body_bytes)
        with Departure(request.receive):  # type: ignore[arg-type]
            await rag.insert(principal, activity, wanted)
        return _nothing()

    return [query, insert]


def _endpoint(whole: str | None, uri: str | None) -> str | None:
    """Clients write the object as JSON, as ``mcp_endpoint[uri]``, or the URL alone."""
    if whole is None or not whole.startswith("{"):
        return whole or uri
    try:
        return msgspec.json.decode(whole.encode(), type=Endpoint).uri
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidRequest(
            "Invalid 'mcp_endpoint': expected a URL, or a JSON object with 'uri'.",
            param="mcp_endpoint",
            code="invalid_value",
        ) from None


def _nothing() -> Response[bytes]:
    return Response(b"null", media_type="application/json")
