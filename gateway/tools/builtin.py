"""Tools that the gateway itself runs, as LlamaStack's groups of them."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from opentelemetry.trace import SpanKind

from gateway.errors import InvalidRequest
from gateway.identity.principal import Principal
from gateway.observability import semconv
from gateway.observability.activity import Activity
from gateway.ports import ServedTool, WebSearch, WebSearchFailed
from gateway.tools.schemas import Invocation

__all__ = ["BuiltinTools", "WebSearchTools", "text_argument"]


class BuiltinTools(Protocol):
    """One group of them."""

    @property
    def group(self) -> str:
        """The group's id."""

    @property
    def provider_id(self) -> str: ...

    @property
    def tools(self) -> list[ServedTool]: ...

    async def invoke(
        self, principal: Principal, activity: Activity, name: str, kwargs: dict[str, Any]
    ) -> Invocation:
        """Raises ``InvalidRequest`` for arguments that can't be."""


class WebSearchTools:
    """``builtin::websearch`` with the one tool ``web_search``."""

    group = "builtin::websearch"
    tools = [  # noqa: RUF012  (never changed)
        ServedTool(
            name="web_search",
            description="Search the web for information",
            input_schema={
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "The query to search for"}
                },
                "required": ["query"],
            },
        )
    ]

    def __init__(self, search: WebSearch, kind: str, max_results: int) -> None:
        self._search = search
        self._max_results = max_results
        self.provider_id = f"{kind}-search"

    async def invoke(
        self, _: Principal, activity: Activity, name: str, kwargs: dict[str, Any]
    ) -> Invocation:
        query = text_argument(kwargs, "query")
        attributes = {semconv.OPERATION: "execute_tool", semconv.TOOL_NAME: name}
        try:
            with activity.step(f"execute_tool {name}", kind=SpanKind.CLIENT, attributes=attributes):
                pages = await self._search.search(query, limit=self._max_results)
        except WebSearchFailed as failed:
            return Invocation(error_code=1, error_message=failed.message)
        found = [{"title": page.title, "url": page.url, "content": page.text} for page in pages]
        text = msgspec.json.encode({"query": query, "top_k": found}).decode()
        return Invocation(content=text, error_code=0)


def text_argument(kwargs: dict[str, Any], name: str) -> str:
    value = kwargs.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(
            f"Invalid 'kwargs.{name}': expected a text.",
            param=f"kwargs.{name}",
            code="missing_required_parameter" if value is None else "invalid_type",
        )
    return value
