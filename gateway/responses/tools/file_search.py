"""Searching vector stores for the model."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.responses.calls import ToolCall
from gateway.responses.citations import Passage, Sources
from gateway.responses.stream import ResponseStream
from gateway.responses.tool_definitions import FileSearchTool
from gateway.vector_stores.search import SearchService
from gateway.vector_stores.search_schemas import SearchRequest, SearchResult

__all__ = ["FileSearch", "history"]

RESULTS = 10
"""Where the tool doesn't say how many."""
MAX_QUERY = 4096
NOTHING = "Nothing was found in the documents."


class FileSearch:
    """``room`` is how many characters of results the model may be shown."""

    def __init__(
        self, search: SearchService, principal: Principal, sources: Sources, *, room: int
    ) -> None:
        self._search = search
        self._principal = principal
        self._sources = sources
        self._room = room

    async def check(self, tool: FileSearchTool, param: str) -> None:
        """Raises ``InvalidRequest`` or ``NotFound`` for stores and filters that can't be used."""
        request = _request(tool, "-")
        for place, store_id in enumerate(tool.vector_store_ids):
            try:
                await self._search.check(self._principal, store_id, request)
            except GatewayError as error:
                inner = error.param
                error.param = (
                    f"{param}.vector_store_ids[{place}]"
                    if inner in (None, "vector_store_id")
                    else f"{param}.{inner}"
                )
                raise

    async def run(
        self, activity: Activity, stream: ResponseStream, tool: FileSearchTool, call: ToolCall
    ) -> str:
        """What the model is told. Raises ``GatewayError`` where a search fails: an answer that
        was to rest on documents is none without them.
        """
        assert call.index is not None  # a call that the caller sees
        item = call.item
        query = _query(call)
        if query is None:
            item["status"] = "failed"
            await stream.done(call.index)
            return "Error: call file_search with a 'query' that says what to look for."
        item["queries"], item["status"] = [query], "searching"
        await stream.about(call.index, "response.file_search_call.searching")
        found = await self._find(activity, tool, query)
        shown, told = self._told(found)
        self._sources.add(call.index, [_passage(result) for _, result in found[:shown]])
        item["results"] = [_result(store, result) for store, result in found]
        item["status"] = "completed"
        await stream.about(call.index, "response.file_search_call.completed")
        await stream.done(call.index)
        return told

    def remember(self, index: int, item: dict[str, Any]) -> None:
        """What an earlier attempt has found may be cited; ``index`` is the item's place."""
        self._sources.add(
            index,
            [
                Passage(
                    file_id=one["file_id"],
                    filename=one["filename"],
                    chunk_id=one["chunk_id"],
                    text=one["text"],
                )
                for one in item.get("results") or ()
            ],
        )

    async def _find(
        self, activity: Activity, tool: FileSearchTool, query: str
    ) -> list[tuple[str, SearchResult]]:
        """The best of all stores together, each with its store."""
        request = _request(tool, query)
        stores = list(dict.fromkeys(tool.vector_store_ids))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._search.search(self._principal, activity, store_id, request)
                    )
                    for store_id in stores
                ]
        except* GatewayError as failed:
            raise failed.exceptions[0] from None
        found = [
            (store, result)
            for store, task in zip(stores, tasks, strict=True)
            for result in task.result().data
        ]
        found.sort(key=lambda one: -one[1].score)
        return found[: tool.max_num_results or RESULTS]

    def _told(self, found: list[tuple[str, SearchResult]]) -> tuple[int, str]:
        """How many of the passages fit, and these as the model reads them."""
        if not found:
            return 0, NOTHING
        told: list[str] = []
        left = self._room
        for number, (_, result) in enumerate(found, 1):
            passage = f"[{number}] {result.filename}\n{_text(result)}"
            if len(passage) > left:
                if told:
                    break
                passage = passage[: max(left, 200)]
            told.append(passage)
            left -= len(passage)
        return len(told), "\n\n".join(told)


def history(item: dict[str, Any], room: int) -> str | None:
    """What the model was told by a search of an earlier turn, where that is still known."""
    results = item.get("results")
    if results is None:
        return None
    texts = [f"[{n}] {one.get('filename')}\n{one.get('text')}" for n, one in enumerate(results, 1)]
    return "\n\n".join(texts)[:room] or NOTHING


def _request(tool: FileSearchTool, query: str) -> SearchRequest:
    return SearchRequest(
        query=query,
        filters=tool.filters,
        max_num_results=tool.max_num_results or RESULTS,
        ranking_options=tool.ranking_options,
        search_mode=tool.search_mode,
    )


def _query(call: ToolCall) -> str | None:
    given = (call.parsed() or {}).get("query")
    if isinstance(given, list):
        given = " ".join(one for one in given if isinstance(one, str))
    return given.strip()[:MAX_QUERY] or None if isinstance(given, str) else None


def _text(result: SearchResult) -> str:
    return "\n".join(part.text for part in result.content)


def _passage(result: SearchResult) -> Passage:
    return Passage(
        file_id=result.file_id,
        filename=result.filename,
        chunk_id=result.content[0].chunk_metadata.chunk_id,
        text=_text(result),
    )


def _result(store_id: str, result: SearchResult) -> dict[str, Any]:
    """OpenAI's five fields, and which chunk of which store it is."""
    return {
        "file_id": result.file_id,
        "filename": result.filename,
        "score": result.score,
        "text": _text(result),
        "attributes": msgspec.to_builtins(result.attributes),
        "vector_store_id": store_id,
        "chunk_id": result.content[0].chunk_metadata.chunk_id,
    }
