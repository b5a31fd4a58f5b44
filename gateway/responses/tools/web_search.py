"""Searching the web for the model."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from gateway.errors import InvalidRequest
from gateway.observability.activity import Activity
from gateway.ports import WebSearch, WebSearchFailed
from gateway.responses.calls import ToolCall
from gateway.responses.citations import Sources, WebSource
from gateway.responses.stream import ResponseStream
from gateway.responses.tool_definitions import AnyWebSearchTool

__all__ = ["WebSearches"]

RESULTS = {"low": 3, "medium": 5, "high": 10}
MAX_QUERY = 400
"""What search engines take."""


class WebSearches:
    """``engine`` is ``None`` where none is configured."""

    def __init__(self, engine: WebSearch | None, sources: Sources, *, room: int) -> None:
        self._engine = engine
        self._sources = sources
        self._room = room

    def check(self, param: str) -> None:
        """Raises ``InvalidRequest`` where there is no search engine."""
        if self._engine is None:
            raise InvalidRequest(
                "Web search is not available: no search engine is configured (web_search.kind).",
                param=param,
                code="web_search_not_configured",
            )

    async def run(
        self, activity: Activity, stream: ResponseStream, tool: AnyWebSearchTool, call: ToolCall
    ) -> str:
        """What the model is told; also that a search failed, which it can say."""
        assert self._engine is not None  # checked
        assert call.index is not None  # a call that the caller sees
        item = call.item
        query = (call.parsed() or {}).get("query")
        query = query.strip()[:MAX_QUERY] if isinstance(query, str) else ""
        if not query:
            item["status"] = "failed"
            await stream.done(call.index)
            return "Error: call web_search with a 'query' that says what to look for."
        item["action"] = {"type": "search", "query": query, "queries": [query]}
        item["status"] = "searching"
        await stream.about(call.index, "response.web_search_call.searching")
        filters, location = tool.filters, tool.user_location
        try:
            with activity.step("search web", kind=SpanKind.CLIENT):
                pages = await self._engine.search(
                    query,
                    limit=RESULTS[tool.search_context_size or "medium"],
                    allowed_domains=tuple((filters.allowed_domains if filters else None) or ()),
                    country=location.country if location else None,
                )
        except WebSearchFailed as error:
            item["status"] = "failed"
            await stream.done(call.index)
            return f"Error: the web search failed: {error.message}"
        sources = [WebSource(url=p.url, title=p.title, text=p.text) for p in pages]
        self._sources.add(call.index, sources)
        item["action"]["sources"] = [{"type": "url", "url": page.url} for page in pages]
        item["status"] = "completed"
        await stream.about(call.index, "response.web_search_call.completed")
        await stream.done(call.index)
        told = "\n\n".join(
            f"[{number}] {page.title}\n{page.url}\n{page.text}"
            for number, page in enumerate(pages, 1)
        )
        return told[: self._room] or "Nothing was found."
