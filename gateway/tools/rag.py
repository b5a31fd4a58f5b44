"""LlamaStack's tool for retrieval, up to 0.6: ``knowledge_search`` and the routes of ``rag-tool``.

A query is a search in vector stores, shown as text for a model; an insertion makes a file of each
document and attaches it, as LlamaStack does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
import re
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.errors import InvalidRequest
from gateway.files.schemas import NewFile
from gateway.files.service import FileService
from gateway.http.filename import harmless
from gateway.identity.principal import Principal
from gateway.observability.activity import Activity
from gateway.ports import ServedTool, WebFetcher
from gateway.tools.builtin import text_argument
from gateway.tools.schemas import (
    Invocation,
    RagDocument,
    RagInsert,
    RagQuery,
    RagQueryConfig,
    RagResult,
    TextItem,
)
from gateway.vector_stores.file_service import StoreFileService
from gateway.vector_stores.schemas import AttachFile, StaticChunking, StaticSizes
from gateway.vector_stores.search import SearchService
from gateway.vector_stores.search_schemas import QueriedChunk, QueryParams, QueryRequest

__all__ = ["RagTools"]

MAX_FETCHED_BYTES = 64 * 1024 * 1024
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)
_LEFT_OUT = frozenset({"token_count", "metadata_token_count", "vector_db_id"})


class RagTools:
    """``builtin::rag``, and what its routes do."""

    group = "builtin::rag"
    provider_id = "rag-runtime"
    tools = [  # noqa: RUF012  (never changed)
        ServedTool(name="insert_into_memory", description="Insert documents into memory"),
        ServedTool(
            name="knowledge_search",
            description="Search for information in a database.",
            input_schema={
                "type": "object",
                "properties": {
                    "query": {
                        "type": "string",
                        "description": "The query to search for. Can be a natural language "
                        "sentence or keywords.",
                    }
                },
                "required": ["query"],
            },
        ),
    ]

    def __init__(
        self,
        search: SearchService,
        files: FileService,
        store_files: StoreFileService,
        fetcher: WebFetcher,
    ) -> None:
        self._search = search
        self._files = files
        self._store_files = store_files
        self._fetcher = fetcher

    async def invoke(
        self, principal: Principal, activity: Activity, name: str, kwargs: dict[str, Any]
    ) -> Invocation:
        if name != "knowledge_search":
            raise InvalidRequest(
                f"'{name}' can't be invoked. Use '/v1/tool-runtime/rag-tool/insert'.",
                param="tool_name",
                code="invalid_value",
            )
        text_argument(kwargs, "query")
        try:
            asked = msgspec.convert({**kwargs, "content": kwargs["query"]}, RagQuery)
        except msgspec.ValidationError as error:
            raise InvalidRequest(
                f"Invalid 'kwargs': {error}.", param="kwargs", code="invalid_value"
            ) from None
        found = await self.query(principal, activity, asked)
        return Invocation(content=found.content or [], error_code=0, metadata=found.metadata)

    async def query(self, principal: Principal, activity: Activity, asked: RagQuery) -> RagResult:
        """The best chunks of all these stores, as text. Raises as a search does."""
        config = asked.query_config or RagQueryConfig()
        stores = asked.vector_store_ids or asked.vector_db_ids or []
        if not stores:
            raise InvalidRequest(
                "Missing required parameter: 'vector_store_ids'.",
                param="vector_store_ids",
                code="missing_required_parameter",
            )
        params = QueryParams(mode=config.mode, max_chunks=config.max_chunks)
        answers = await asyncio.gather(
            *(
                self._search.query(
                    principal,
                    activity,
                    QueryRequest(vector_store_id=store, query=asked.content, params=params),
                )
                for store in stores
            )
        )
        hits = [
            (score, store, chunk)
            for store, answer in zip(stores, answers, strict=True)
            for chunk, score in zip(answer.chunks, answer.scores, strict=True)
        ]
        hits.sort(key=lambda hit: hit[0], reverse=True)
        return _result(hits[: config.max_chunks], config, _text_of(asked.content))

    async def insert(self, principal: Principal, activity: Activity, wanted: RagInsert) -> None:
        """Every document as a file of the store, when they are indexed or the time to wait is over.

        Raises for the first document that can't be taken; those before it are there then.
        """
        store = wanted.vector_store_id or wanted.vector_db_id
        if store is None:
            raise InvalidRequest(
                "Missing required parameter: 'vector_store_id'.",
                param="vector_store_id",
                code="missing_required_parameter",
            )
        size = wanted.chunk_size_in_tokens
        strategy = StaticChunking(
            StaticSizes(max_chunk_size_tokens=size, chunk_overlap_tokens=size // 4)
        )
        attached: list[tuple[str, str]] = []
        for number, document in enumerate(wanted.documents):
            param = f"documents[{number}]"
            data, media_type = await self._content(document, f"{param}.content")
            described = partial(_new, document, media_type)
            row = await self._files.store(principal.project, _once(data), described)
            try:
                attach = AttachFile(
                    file_id=row.id,
                    attributes={**document.metadata, "document_id": document.document_id},
                    chunking_strategy=strategy,
                )
                made = await self._store_files.attach(principal, activity, store, attach)
            except BaseException:
                await self._files.delete(principal, row.id)
                raise
            attached.append((row.id, made))
        for file_id, attachment in attached:
            await self._store_files.settled(principal, store, file_id, attachment)

    async def _content(self, document: RagDocument, param: str) -> tuple[bytes, str]:
        """The document's bytes and their type."""
        content = document.content
        uri = content.get("uri") if isinstance(content, dict) else None
        text = uri if isinstance(uri, str) else _text_of(content)
        if text.startswith("data:"):
            return _data_url(text, param)
        if uri is None:
            return text.encode("utf-8", "replace"), document.mime_type or "text/plain"
        page = await self._fetcher.fetch(text, max_bytes=MAX_FETCHED_BYTES, param=f"{param}.uri")
        return page.data, document.mime_type or page.media_type


def _result(
    hits: list[tuple[float, str, QueriedChunk]], config: RagQueryConfig, query: str
) -> RagResult:
    if not hits:
        return RagResult()
    found = f"knowledge_search tool found {len(hits)} chunks:\n"
    texts = [f"{found}BEGIN of knowledge_search tool results.\n"]
    shown: list[tuple[float, str, QueriedChunk]] = []
    tokens = 0
    for number, hit in enumerate(hits, 1):
        chunk = hit[2]
        count = chunk.chunk_metadata.content_token_count
        tokens += count if count is not None else len(chunk.content) // 4
        if tokens > config.max_tokens_in_context and shown:
            break
        shown.append(hit)
        texts.append(_filled(config.chunk_template, number, chunk))
    texts.append("END of knowledge_search tool results.\n")
    texts.append(
        f'The above results were retrieved to help answer the user\'s query: "{query}". '
        "Use them as supporting information only in answering this query.\n"
    )
    return RagResult(
        content=[TextItem(text=text) for text in texts],
        metadata={
            "document_ids": [one.chunk_metadata.document_id for _, _, one in shown],
            "chunks": [one.content for _, _, one in shown],
            "scores": [score for score, _, _ in shown],
            "vector_db_ids": [store for _, store, _ in shown],
            "vector_store_ids": [store for _, store, _ in shown],
        },
    )


def _filled(template: str, number: int, chunk: QueriedChunk) -> str:
    """The three places that LlamaStack's templates have; a caller's template is no program."""
    metadata = {name: value for name, value in chunk.metadata.items() if name not in _LEFT_OUT}
    about = chunk.chunk_metadata
    metadata |= {"chunk_id": about.chunk_id, "document_id": about.document_id}
    if about.source is not None:
        metadata["source"] = about.source
    filled = template.replace("{index}", str(number)).replace("{metadata}", str(metadata))
    return filled.replace("{chunk.content}", chunk.content)


def _text_of(content: str | dict[str, Any] | list[Any]) -> str:
    """LlamaStack's interleaved content as text."""
    if isinstance(content, str):
        return content
    items = content if isinstance(content, list) else [content]
    texts = [one.get("text") if isinstance(one, dict) else one for one in items]
    return " ".join(one for one in texts if isinstance(one, str))


def _data_url(url: str, param: str) -> tuple[bytes, str]:
    head, comma, body = url.removeprefix("data:").partition(",")
    given = head.partition(";")[0]
    media_type = given if _MEDIA_TYPE.fullmatch(given) else "text/plain"
    try:
        if comma and head.endswith(";base64"):
            return base64.b64decode(unquote_to_bytes(body), validate=True), media_type
        if comma:
            return unquote_to_bytes(body), media_type
    except (ValueError, binascii.Error):
        pass
    raise InvalidRequest(
        f"Invalid '{param}': the data URL can't be read.", param=param, code="invalid_url"
    )


def _new(document: RagDocument, media_type: str) -> NewFile:
    given = document.metadata.get("filename")
    ending = mimetypes.guess_extension(media_type) or ".txt"
    name = given if isinstance(given, str) and given else f"{document.document_id}{ending}"
    return NewFile(filename=harmless(name), purpose="assistants", media_type=media_type)


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data
