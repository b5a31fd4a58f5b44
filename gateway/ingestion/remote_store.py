"""A vector store behind the HTTP API, as a client sees it."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import httpx
from msgspec import Struct

__all__ = ["Away", "Refused", "RemoteFile", "RemoteStore", "StoreFailed"]

Attributes = Mapping[str, str | float | bool]

_ATTEMPTS = 8
_FIRST_ATTEMPTS = 3
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_PAGE = 100


class StoreFailed(Exception):
    """Something can't be done in the store. The message is for people.

    ::

        StoreFailed
        ├── Refused    the gateway said no
        └── Away       it, or what it needs, was away or busy for as long as was waited
    """


class Refused(StoreFailed):
    """The gateway said no; it would again."""


class Away(StoreFailed):
    """The gateway, or what it needs, was away or busy for as long as was waited."""


class RemoteFile(Struct, frozen=True, kw_only=True):
    """A file in the store."""

    file_id: str
    status: str
    attributes: dict[str, Any]
    chunking: dict[str, Any] | None
    """Its ``chunking_strategy``."""
    error: str | None
    created_at: int = 0
    """When it came into the store, in Unix seconds."""


class RemoteStore:
    """One vector store; every call is made again while the gateway is busy or away."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        ca_file: str | None = None,
        traceparent: str | None = None,
    ) -> None:
        """``ca_file`` is trusted beside the system's authorities. Raises ``OSError`` for it."""
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        if traceparent:
            headers["traceparent"] = traceparent
        context = httpx.create_ssl_context()
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers=headers,
            verify=context,
            timeout=httpx.Timeout(300.0, connect=10.0),
            limits=httpx.Limits(max_connections=64),
        )
        self.id = ""
        self._answered = False
        """A gateway that never answered is most likely a wrong address: that is said soon."""

    async def find(self, name: str) -> bool:
        """Look for the store of this id or name. Raises ``Refused`` where several have the name,
        and for an id that no store has.
        """
        stores = [one async for one in self._pages("vector_stores")]
        found = [one for one in stores if one["id"] == name]
        found = found or [one for one in stores if one["name"] == name]
        if not found and name.startswith("vs_"):
            raise Refused(
                f"There is no vector store '{name}', and none is made under a name that begins "
                "with 'vs_', as ids do."
            )
        if len(found) > 1:
            ids = ", ".join(one["id"] for one in found)
            raise Refused(f"Several vector stores are named '{name}': {ids}. Give --store an id.")
        if found:
            self.id = found[0]["id"]
        return bool(found)

    async def create(self, name: str, embedding_model: str | None) -> None:
        body = {"name": name}
        if embedding_model is not None:
            body["embedding_model"] = embedding_model
        made = await self._send("POST", "vector_stores", json=body)
        self.id = made.json()["id"]

    async def files(self) -> AsyncIterator[RemoteFile]:
        """All files in the store."""
        async for one in self._pages(f"vector_stores/{self.id}/files"):
            yield _remote(one)

    async def upload(
        self, path: Path, filename: str, read: Callable[[IO[bytes]], IO[bytes]]
    ) -> str:
        """Make a file of this content; ``read`` may watch the reading. Returns its id."""
        for attempt in range(1, _ATTEMPTS + 1):
            file = await asyncio.to_thread(path.open, "rb")
            try:
                return str(
                    (
                        await self._send(
                            "POST",
                            "files",
                            attempts=1,
                            data={"purpose": "assistants"},
                            files={"file": (filename, read(file))},
                        )
                    ).json()["id"]
                )
            except _Busy as busy:
                if attempt == _ATTEMPTS:
                    raise Away(str(busy)) from None
                await asyncio.sleep(busy.pause(attempt))
            finally:
                await asyncio.to_thread(file.close)
        raise AssertionError("the last attempt returns or raises")

    async def attach(
        self, file_id: str, attributes: Attributes, chunking: Mapping[str, Any] | None
    ) -> RemoteFile:
        """Put a file into the store and wait until that is done or has failed."""
        body: dict[str, Any] = {"file_id": file_id, "attributes": dict(attributes)}
        if chunking is not None:
            body["chunking_strategy"] = chunking
        answer = await self._send("POST", f"vector_stores/{self.id}/files", json=body)
        return await self._finished(answer)

    async def wait(self, file_id: str) -> RemoteFile:
        """Until the file is done or has failed."""
        return await self._finished(await self._send("GET", self._file(file_id)))

    async def set_attributes(self, file_id: str, attributes: Attributes) -> None:
        await self._send("POST", self._file(file_id), json={"attributes": dict(attributes)})

    async def detach(self, file_id: str) -> None:
        """Take the file out of the store, where it still is in it; the file itself stays."""
        await self._send("DELETE", self._file(file_id), missing_is_fine=True)

    async def delete_file(self, file_id: str) -> None:
        """The file itself, and with it its place in every store; it may be gone already."""
        path = f"files/{quote(file_id, safe='')}"
        await self._send("DELETE", path, missing_is_fine=True)

    async def embedding_model(self) -> tuple[str, int | None]:
        """The store's, and how many tokens it takes where that is known."""
        store = (await self._send("GET", f"vector_stores/{self.id}")).json()
        model = store.get("embedding_model") or store["metadata"]["embedding_model"]
        about = (await self._send("GET", f"models/{quote(model, safe='')}")).json()
        return model, (about.get("custom_metadata") or {}).get("context_length")

    async def embed(self, model: str, texts: Sequence[str], *, cut: bool) -> list[bytes]:
        """Their vectors as 32-bit floats. With ``cut``, of a text that is longer than the model
        takes only the beginning counts.
        """
        body: dict[str, Any] = {"model": model, "input": texts, "encoding_format": "base64"}
        if cut:
            body["truncate_prompt_tokens"] = -1  # vLLM's word for "to what the model takes"
        answer = (await self._send("POST", "embeddings", json=body)).json()
        made = sorted(answer["data"], key=lambda one: one["index"])
        if len(made) != len(texts):
            raise Away(f"The model made {len(made)} vectors of {len(texts)} texts.")
        return [base64.b64decode(one["embedding"]) for one in made]

    async def insert(self, chunks: Sequence[Mapping[str, Any]]) -> None:
        """Chunks in LlamaStack's form, with their vectors."""
        body = {"vector_store_id": self.id, "chunks": chunks}
        await self._send("POST", "vector-io/insert", json=body)

    def _file(self, file_id: str) -> str:
        return f"vector_stores/{self.id}/files/{quote(file_id, safe='')}"

    async def _finished(self, answer: httpx.Response) -> RemoteFile:
        while (file := _remote(answer.json())).status == "in_progress":
            wait = float(answer.headers.get("openai-poll-after-ms", 1000)) / 1000
            await asyncio.sleep(min(max(wait, 0.1), _LONGEST_PAUSE_SECONDS))
            answer = await self._send("GET", self._file(file.file_id))
        return file

    async def _pages(self, path: str) -> AsyncIterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            answer = await self._send("GET", path, params={"limit": _PAGE, **after})
            page = answer.json()
            for one in page["data"]:
                yield one
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    async def _send(
        self,
        method: str,
        path: str,
        *,
        attempts: int = _ATTEMPTS,
        missing_is_fine: bool = False,
        **options: Any,
    ) -> httpx.Response:
        """Raises ``Refused``, or ``_Busy`` where one attempt is all there is."""
        for attempt in range(1, attempts + 1):
            try:
                return await self._once(method, path, missing_is_fine=missing_is_fine, **options)
            except _Busy as busy:
                if attempts == 1:
                    raise
                if attempt == (attempts if self._answered else _FIRST_ATTEMPTS):
                    raise Away(str(busy)) from None
                await asyncio.sleep(busy.pause(attempt))
        raise AssertionError("the last attempt returns or raises")

    async def _once(
        self, method: str, path: str, *, missing_is_fine: bool, **options: Any
    ) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, **options)
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
            raise _Busy(f"The gateway can't be reached: {why}.", None) from None
        self._answered = True
        if answer.is_success or (missing_is_fine and answer.status_code == 404):
            return answer
        message = _message(answer)
        if answer.status_code in _PASSING:
            raise _Busy(message, answer)
        raise Refused(message)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()


class _Busy(Exception):
    """It may work in a while."""

    def __init__(self, message: str, answer: httpx.Response | None) -> None:
        super().__init__(message)
        self._after = _retry_after(answer) if answer is not None else None

    def pause(self, attempt: int) -> float:
        """How long to wait, in seconds."""
        growing = _FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1) * random.uniform(0.8, 1.2)  # noqa: S311
        return min(max(growing, self._after or 0.0), _LONGEST_PAUSE_SECONDS)


def _retry_after(answer: httpx.Response) -> float | None:
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return float(answer.headers[name]) / unit
        except (KeyError, ValueError):  # not there, or a date
            continue
    return None


def _message(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        if error.get("code") == "unknown_url":
            return f"There is no such API at {answer.request.url}. Does the base URL end in /v1?"
        return str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{answer.status_code} {answer.reason_phrase} from {answer.request.url}"


def _remote(body: Mapping[str, Any]) -> RemoteFile:
    error = body.get("last_error")
    return RemoteFile(
        file_id=body["id"],
        status=body["status"],
        attributes=dict(body.get("attributes") or {}),
        chunking=body.get("chunking_strategy"),
        error=error["message"] if error else None,
        created_at=body.get("created_at") or 0,
    )
