"""Checking a request for a response, and finding out what it needs, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.database.identifiers import new_id
from gateway.errors import InvalidRequest
from gateway.http.validation import explain
from gateway.identity.principal import Principal
from gateway.items.including import includes
from gateway.prompts.schemas import RenderedPrompt
from gateway.prompts.service import PromptService
from gateway.responses.assignment import Assignment
from gateway.responses.context import Context, ContextReader, approvals
from gateway.responses.messages import check_calls
from gateway.responses.run import Run
from gateway.responses.schemas import CreateResponse, PromptReference, forwarded
from gateway.responses.sealed import unseal
from gateway.responses.tool_choice import parse_tool_choice
from gateway.responses.tool_definitions import FileSearchTool, McpTool
from gateway.routing.catalog import Catalog
from gateway.tools.service import ToolService
from gateway.vector_stores.properties import check_metadata

__all__ = ["Preparation", "decode"]

MAX_TOOLS = 128


def decode(body: Mapping[str, Any]) -> CreateResponse:
    """Raises ``InvalidRequest`` that names the parameter at fault."""
    try:
        return msgspec.convert(body, CreateResponse)
    except msgspec.ValidationError as error:
        raise explain(error, CreateResponse) from None


class Preparation:
    def __init__(
        self,
        catalog: Catalog,
        contexts: ContextReader,
        prompts: PromptService,
        servers: ToolService,
        *,
        searches_web: bool,
    ) -> None:
        self._catalog = catalog
        self._contexts = contexts
        self._prompts = prompts
        self._servers = servers
        self._searches_web = searches_web

    async def prepare(
        self,
        principal: Principal,
        body: Mapping[str, Any],
        *,
        response_id: str | None = None,
        created_at: int | None = None,
    ) -> Assignment:
        """Raises ``InvalidRequest``, ``NotFound`` and ``ModelNotFound``; nothing is kept yet."""
        request = decode(body)
        self._check(principal, request)
        choice = parse_tool_choice(request.tool_choice, request.tools or ())
        rendered = await self._prompt(principal, request.prompt)
        context = await self.context(principal, request)
        if not context.items and rendered is None:
            raise InvalidRequest(
                "Missing required parameter: 'input'.",
                param="input",
                code="missing_required_parameter",
            )
        answered = approvals(context)
        check_calls(context.items)
        for place, item in enumerate(context.input):
            if item["type"] == "compaction":
                unseal(item["encrypted_content"], f"input[{place}].encrypted_content")
        system = [rendered.text if rendered is not None else "", request.instructions or ""]
        return Assignment(
            principal=principal,
            run=Run(response_id or new_id("resp_"), request, created_at=created_at),
            context=context,
            choice=choice,
            approvals=answered,
            system="\n\n".join(part for part in system if part),
            prompt_parts=[dict(part) for part in rendered.parts] if rendered is not None else [],
            extra=forwarded(dict(body)),
        )

    async def context(self, principal: Principal, request: Any) -> Context:
        """The items that a request for a response, or for its tokens, stands on."""
        conversation = request.conversation
        if conversation is not None and not isinstance(conversation, str):
            conversation = conversation.id
        return await self._contexts.read(
            principal,
            request.input,
            previous_id=request.previous_response_id,
            conversation_id=conversation,
        )

    def _check(self, principal: Principal, request: CreateResponse) -> None:
        self._catalog.find(request.model, ("chat",), principal.models)
        check_metadata(request.metadata)
        includes(request.include or ())
        if request.background and not request.stored:
            raise InvalidRequest(
                "Background responses are stored: 'background' needs 'store' to be true.",
                param="background",
                code="invalid_value",
            )
        tools = request.tools or ()
        if len(tools) > MAX_TOOLS:
            raise InvalidRequest(
                f"Invalid 'tools': at most {MAX_TOOLS} tools.",
                param="tools",
                code="array_above_max_length",
            )
        labels: set[str] = set()
        names: set[str] = set()
        for place, tool in enumerate(tools):
            param = f"tools[{place}]"
            match tool:
                case FileSearchTool():
                    pass  # its stores are looked up before the first turn
                case McpTool():
                    self._check_server(tool, param, labels)
                case _ if hasattr(tool, "name"):
                    _once(tool.name, names, f"{param}.name")
                case _ if not self._searches_web:
                    raise InvalidRequest(
                        "Web search is not available: no search engine is configured "
                        "(web_search.kind).",
                        param=param,
                        code="web_search_not_configured",
                    )

    def _check_server(self, tool: McpTool, param: str, labels: set[str]) -> None:
        _once(tool.server_label, labels, f"{param}.server_label")
        self._servers.address(
            server_label=tool.server_label,
            server_url=tool.server_url,
            connector_id=tool.connector_id,
            authorization=tool.authorization,
            headers=tool.headers,
            param=param,
        )

    async def _prompt(
        self, principal: Principal, given: PromptReference | None
    ) -> RenderedPrompt | None:
        if given is None:
            return None
        version = None if given.version is None else str(given.version)
        return await self._prompts.render(principal, given.id, version, given.variables or {})


def _once(name: str, seen: set[str], param: str) -> None:
    if name in seen:
        raise InvalidRequest(
            f"Duplicate value for '{param}': '{name}' is there already.",
            param=param,
            code="invalid_value",
        )
    seen.add(name)
